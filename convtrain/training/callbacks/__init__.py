"""The Lightning callbacks that convtrain adds to a training."""
