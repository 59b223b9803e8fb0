"""Hydra's side of a command: compose it, check it, resume it, plan a sweep. Imports no torch."""
