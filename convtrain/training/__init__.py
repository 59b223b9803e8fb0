"""The six steps, and what stands around them: losses, optimisers, schedules, trainer, callbacks."""
