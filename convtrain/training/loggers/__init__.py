"""The loggers of a run."""
