"""The groups of the configuration: which keys and values each choice allows."""
