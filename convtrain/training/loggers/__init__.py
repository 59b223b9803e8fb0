"""The loggers of a run, one a file."""
