"""Data: sources, splits, resident batches and augmentation."""
