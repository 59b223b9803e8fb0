"""What is recorded of gradients: when, what, and where it is stored."""
