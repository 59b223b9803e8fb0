"""What HTML pages share: templates, a style sheet, and plots that are drawn as inline SVG."""
