"""Many runs from one command: jobs that resume, what they come to, and how it is shown."""
