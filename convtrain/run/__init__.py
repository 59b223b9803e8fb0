"""A run on disk: its directory, its provenance, what is printed of it. Imports no torch."""
