"""The schema of each config group."""
