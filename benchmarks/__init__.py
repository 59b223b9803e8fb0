"""Interleaved comparisons of equal work, so that a machine's drift affects both sides alike."""
