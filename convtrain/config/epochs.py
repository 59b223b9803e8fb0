"""The only count of an epoch's batches and optimiser steps."""

import math


def batch_count(images: int, batch_size: int, *, drop_last: bool = False) -> int:
    return images // batch_size if drop_last else math.ceil(images / batch_size)


def limited(batches: int, limit: float) -> int:
    """Apply a limit as Lightning does: an int is a number of batches, a float a fraction."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def steps_of_epoch(batches: int, accumulate: int) -> int:
    """Return the optimiser steps of an epoch; its last step may accumulate fewer batches."""
    return math.ceil(batches / accumulate)


def steps_of_training(epoch_steps: int, max_epochs: int, max_steps: int | None) -> int:
    """Return the optimiser steps of a training that does not stop early."""
    steps = epoch_steps * max_epochs
    return steps if max_steps is None else min(steps, max_steps)
