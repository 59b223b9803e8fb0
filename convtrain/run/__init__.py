"""A run on disk: its directory, its provenance and its printed report. Imports no torch."""
