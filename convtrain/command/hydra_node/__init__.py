"""Checks of Hydra's own node: code, paths and values in it."""
