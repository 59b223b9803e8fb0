"""Run directories: what a run leaves behind, and sweeps over many of them."""
