"""How many batches an epoch has, and how many optimiser steps: counted here and nowhere else."""

import math


def batch_count(images: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Return the number of batches in an epoch of so many images."""
    return images // batch_size if drop_last else math.ceil(images / batch_size)


def limited(batches: int, limit: float) -> int:
    """Return how many batches are used, as Lightning counts them.

    A ``limit`` such as ``trainer.limit_train_batches`` is a number of batches if it is an int, and
    a fraction of them if it is a float.
    """
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def steps_of_epoch(batches: int, accumulate: int) -> int:
    """Return the optimiser steps of an epoch; its last batches are a step, however few they are."""
    return math.ceil(batches / accumulate)


def steps_of_training(epoch_steps: int, max_epochs: int, max_steps: int | None) -> int:
    """Return the optimiser steps of a training that nothing ends early."""
    steps = epoch_steps * max_epochs
    return steps if max_steps is None else min(steps, max_steps)
