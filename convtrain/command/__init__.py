"""Hydra's side of a command: compose, check and resume it, plan a sweep. Imports no torch."""
