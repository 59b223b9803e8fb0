"""Image sources: one file for each kind of dataset, with ``load(...) -> Splits``."""
