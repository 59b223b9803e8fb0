"""When a run is saved, and which of its checkpoints are kept."""

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins import CheckpointIO

from convtrain.config.metrics import mode_of
from convtrain.errors import TrainingError
from convtrain.process.atomic import hard_link
from convtrain.run.directory import LAST
from convtrain.training.checkpoint_file import RANKING, load_checkpoint, save_checkpoint, step_of
from convtrain.training.position import validation_follows
from convtrain.training.task import Task

OLDER_NAME = "step{:06d}.ckpt"


class CheckpointFiles(CheckpointIO):
    """Makes Lightning read and write checkpoints as :mod:`checkpoint_file` does, without options.

    Lightning's own stages them in TMPDIR, without fsync or checksum, and reads remote ones with
    ``weights_only=False``.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return load_checkpoint(path, "cpu" if map_location is None else map_location)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class BestCheckpoints(ModelCheckpoint):
    """The best checkpoints by a metric, as ``best-epoch003-step000084.ckpt``.

    What it remembers of files that were moved with their run is found where the run is now; files
    that are gone are forgotten.
    """

    @property
    def state_key(self) -> str:
        return RANKING

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(str(self.dirpath))
        moved = {folder / Path(p).name: s for p, s in state_dict["best_k_models"].items()}
        found = {str(path): score for path, score in moved.items() if path.is_file()}
        if not found:
            return
        ranked = sorted(found, key=lambda path: float(found[path]), reverse=self.mode == "max")
        best, worst = ranked[0], ranked[-1]
        here = {"dirpath": self.dirpath, "best_k_models": found, "last_model_path": ""}
        here |= {"best_model_path": best, "best_model_score": found[best]}
        here |= {"kth_best_model_path": worst, "kth_value": found[worst]}
        super().load_state_dict({**state_dict, **here})

    def _save_topk_checkpoint(
        self, trainer: pl.Trainer, monitor_candidates: dict[str, Any]
    ) -> None:
        _check_weights(trainer)
        super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _should_remove_checkpoint(self, trainer: pl.Trainer, previous: str, current: str) -> bool:
        # Lightning's would keep for ever the one that the training was resumed from.
        return previous != current and Path(previous).parent == Path(str(self.dirpath))


def _check_weights(trainer: pl.Trainer) -> None:
    """Leave the last good checkpoint where it is."""
    if isinstance(trainer.lightning_module, Task):
        trainer.lightning_module.check_weights()


class LastCheckpoint(Checkpoint):
    """``last.ckpt``, and the few before it as ``step000084.ckpt``, to fall back to.

    It is saved at the end of the training besides. Lightning's ``ModelCheckpoint(save_last=True)``
    would leave it behind at every epoch that is not among the best.

    Args:
        folder: where the checkpoints lie.
        every_n_epochs, every_n_steps, every_n_minutes: whichever comes first; None for never.
            Steps are those of the optimiser.
        keep: how many of the newest to keep, ``last.ckpt`` included.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        keep: int = 1,
    ) -> None:
        self.path, self.keep = folder / LAST, keep
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self.every_n_minutes = every_n_minutes
        self._held: int | None = None  # the step of last.ckpt, where it is this training's
        self._awaited = ""  # the end of what is saved at next: a validation, or the epoch
        self._seen = 0
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen, self._saved_at = trainer.global_step, time.monotonic()
        resumed = trainer.ckpt_path
        self._held = trainer.global_step if resumed and Path(resumed) == self.path else None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step, done = trainer.global_step, batch_idx + 1
        if step == self._seen:  # gradients that are still accumulating are in no checkpoint
            return
        self._seen = step
        if (self.every_n_steps and step % self.every_n_steps == 0) or self._is_time(trainer):
            # What is computed and logged at this very step goes into its checkpoint.
            if done == trainer.num_training_batches:
                self._awaited = "epoch"
            elif validation_follows(trainer, done):
                self._awaited = "validation"
            else:
                self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._awaited == "validation":
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epochs = trainer.current_epoch + 1
        ends = (
            trainer.should_stop
            or epochs == trainer.max_epochs
            or trainer.global_step == trainer.max_steps
        )
        if ends or self._awaited or (self.every_n_epochs and epochs % self.every_n_epochs == 0):
            self.save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove what a kill, after the last save, has kept from being removed."""
        resumed = trainer.ckpt_path
        is_last = self._held is not None or (resumed and Path(resumed) == self.path)
        if is_last and trainer.is_global_zero:
            self._prune(trainer.global_step)

    def _is_time(self, trainer: pl.Trainer) -> bool:
        if self.every_n_minutes is None:
            return False
        passed = time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        return bool(trainer.strategy.broadcast(passed))  # clocks differ, and all save together

    def save(self, trainer: pl.Trainer) -> None:
        """Save ``last.ckpt``; what it was is kept besides, if so many are.

        Raises:
            TrainingError: the weights are lost, or the disk is full.
        """
        _check_weights(trainer)
        step = trainer.global_step
        held = trainer.is_global_zero and self._held not in (None, step) and self.path.is_file()
        if held and self.keep > 1:
            with suppress(TrainingError):  # if the disk is full, the next line says so to all
                hard_link(self.path, OLDER_NAME.format(self._held))
        trainer.save_checkpoint(self.path)
        self._held, self._saved_at, self._awaited = step, time.monotonic(), ""
        if trainer.is_global_zero:
            self._prune(step)

    def _prune(self, step: int) -> None:
        """Remove all but the newest, and those of a future that a fall back has undone."""
        names = self.path.parent.glob("step*.ckpt")
        older = sorted((p for p in names if re.fullmatch(r"step\d+", p.stem)), key=step_of)
        past = [path for path in older if step_of(path) < step]
        kept = past[-(self.keep - 1) :] if self.keep > 1 else []
        for path in older:
            if path not in kept:
                path.unlink(missing_ok=True)


def make_checkpoints(
    folder: Path,
    *,
    monitor: str,
    mode: str,
    save_top_k: int,
    every_n_epochs: int,
    every_n_steps: int | None,
    every_n_minutes: float | None,
    keep_last: int,
    validates: bool,
) -> list[Checkpoint]:
    """Make the callbacks that keep the best and the newest checkpoints.

    Without validation there is nothing to tell the best by, and the newest alone are kept.
    """
    best = BestCheckpoints(
        dirpath=folder,
        filename="best-epoch{epoch:03d}-step{step:06d}",
        auto_insert_metric_name=False,
        enable_version_counter=False,
        monitor=monitor,
        mode=mode_of(monitor),
        save_top_k=save_top_k,
        save_last=False,
        every_n_epochs=every_n_epochs,
    )
    last = LastCheckpoint(
        folder,
        every_n_epochs=every_n_epochs,
        every_n_steps=every_n_steps,
        every_n_minutes=every_n_minutes,
        keep=keep_last,
    )
    return [best, last] if validates and save_top_k else [last]
