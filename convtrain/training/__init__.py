"""The six steps of a training and what surrounds them: trainer, losses, schedules, callbacks."""
