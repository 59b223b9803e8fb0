"""Comparisons on equal work, interleaved so that a machine's drift falls on both sides alike."""
