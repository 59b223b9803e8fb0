"""End a run on a signal, at a place from which it resumes exactly."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from convtrain.process.signals import Interrupted, Signals
from convtrain.training.callbacks.checkpoints import LastCheckpoint
from convtrain.training.position import validation_follows


class Interrupts(Checkpoint):
    """Saves and ends a run after a step or a validation batch if a signal was received.

    All processes end together, whichever received the signal. It is a ``Checkpoint`` because
    Lightning calls those last.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self._seen, self._accumulating = 0, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen = trainer.global_step
        self._install()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._install()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.signals.busy = False

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.signals.busy = False

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.signals.busy = True  # the little work that is left must not be interrupted

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        step, done = trainer.global_step, batch_idx + 1
        self._accumulating, self._seen = step == self._seen, step
        if self._accumulating:
            return
        if done < trainer.num_training_batches or validation_follows(trainer, done):
            self._stop_if_asked(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
    ) -> None:
        # A checkpoint holds the accumulated gradients of one device, not of several.
        if not self._accumulating or trainer.world_size == 1:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_asked(trainer)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
    ) -> None:
        self._stop_if_asked(trainer)

    def _install(self) -> None:
        self.signals.install()  # Lightning has just installed its own handler of SIGTERM
        self.signals.busy = True

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        signum = self.signals.received or 0
        if trainer.world_size > 1:
            asked = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(asked, reduce_op="max"))
        if not signum:
            return
        for callback in trainer.checkpoint_callbacks:  # none of them with debug=fast_dev_run
            if isinstance(callback, LastCheckpoint) and not trainer.testing:
                callback.save(trainer)
        raise Interrupted(signum)
