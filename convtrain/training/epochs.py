"""The optimiser steps of an epoch and of a training, from Lightning's trainer."""

import math

import pytorch_lightning as pl

from convtrain.config.epochs import steps_of_epoch, steps_of_training


def epoch_steps(trainer: pl.Trainer) -> int:
    """Return the optimiser steps of an epoch; 0 if it trains on no batch."""
    trainer.fit_loop.setup_data()  # sets the number of batches; later calls do nothing
    if not trainer.limit_train_batches:
        return 0
    return steps_of_epoch(int(trainer.num_training_batches), trainer.accumulate_grad_batches)


def training_steps(trainer: pl.Trainer) -> int:
    """Return the optimiser steps of a training that is not stopped early."""
    max_steps = None if trainer.max_steps == -1 else trainer.max_steps
    return steps_of_training(epoch_steps(trainer), trainer.max_epochs or 0, max_steps)


def training_epochs(trainer: pl.Trainer) -> int:
    """Return the number of epochs that a training begins; ``max_steps`` may end the last one."""
    steps = epoch_steps(trainer)
    return math.ceil(training_steps(trainer) / steps) if steps else trainer.max_epochs or 0
