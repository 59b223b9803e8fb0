"""This process and its siblings: files, locks, signals, ranks, output. Imports no torch."""
