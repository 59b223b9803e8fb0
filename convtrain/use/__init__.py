"""Compare finished runs, export their weights, and reproduce their steps."""
