"""Stopping where a run can be resumed exactly, when a signal has asked for it."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from convtrain.process.signals import Interrupted, Signals
from convtrain.training.callbacks.checkpoints import LastCheckpoint
from convtrain.training.position import validation_follows


class Interrupts(Checkpoint):
    """After a step, or a batch of a validation, saves and ends a run that a signal asks to stop.

    All devices end together, whichever of them got the signal. It is a ``Checkpoint`` because
    Lightning calls those last.

    Args:
        signals: what was received.
        last: saves; None where nothing is saved, as in ``debug=fast_dev_run``.
    """

    def __init__(self, signals: Signals, last: LastCheckpoint | None) -> None:
        self.signals, self.last = signals, last
        self._seen, self._accumulating = 0, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen = trainer.global_step
        self._take_over()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._take_over()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.signals.busy = False

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.signals.busy = False

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.signals.busy = True  # what is left to do is short, and no signal shall cut it

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step, done = trainer.global_step, batch_idx + 1
        self._accumulating, self._seen = step == self._seen, step
        if self._accumulating:
            return
        if done < trainer.num_training_batches or validation_follows(trainer, done):
            self._stop_if_asked(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        # A checkpoint holds the half accumulated gradients of one device, not those of several.
        if not self._accumulating or trainer.world_size == 1:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_asked(trainer)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._stop_if_asked(trainer)

    def _take_over(self) -> None:
        self.signals.install()  # Lightning has just put a handler of its own for SIGTERM
        self.signals.busy = True

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        signum = self.signals.received or 0
        if trainer.world_size > 1:
            asked = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(asked, reduce_op="max"))
        if not signum:
            return
        if self.last is not None and not trainer.testing:
            self.last.save(trainer)
        raise Interrupted(signum)
