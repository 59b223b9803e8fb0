"""Resolves a network's YAML to layers with names, arguments and shapes, without tensors."""
