"""Many runs from one command: jobs that are skipped or resumed, and the table of their results."""
