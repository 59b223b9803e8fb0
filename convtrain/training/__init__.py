"""The task of six steps, and the trainer, losses, schedules, callbacks and loggers around it."""
