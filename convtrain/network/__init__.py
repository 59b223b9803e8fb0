"""From a network's YAML to resolved layers with names, arguments and shapes; no tensor is made."""
