"""What can be done with a run that is on disk: compare it, export it, train it again."""
