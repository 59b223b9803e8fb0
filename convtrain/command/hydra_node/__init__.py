"""Hydra's own node: which keys of it may name code or lead out of a folder, and which are wrong."""
