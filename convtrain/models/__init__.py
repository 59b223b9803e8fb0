"""The two styles in which a declared network is held, and models that come from elsewhere."""
