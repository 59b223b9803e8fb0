"""From the YAML of a network to a tree of layers written out, before any shape is known."""
