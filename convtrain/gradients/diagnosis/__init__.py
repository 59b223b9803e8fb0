"""What is wrong with gradients: while training, at the end, and the origin of a NaN."""
