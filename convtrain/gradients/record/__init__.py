"""Record gradients: the plan, the measurements, and the files."""
