"""Models: a declared network in two styles, and models that come from elsewhere."""
