"""Train many runs by one command, skip or resume them, and show the table of their results."""
