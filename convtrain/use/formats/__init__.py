"""The formats of an exported model: a module for each, with ``write`` and ``read``."""
