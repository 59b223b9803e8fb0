"""When checkpoints are saved, and which of them are kept."""

import logging
import re
import time
from contextlib import suppress
from os import PathLike
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from convtrain.config.groups import callbacks as section
from convtrain.config.metrics import mode_of, not_logged
from convtrain.errors import ConfigError, TrainingError
from convtrain.process.atomic import hard_link
from convtrain.run.directory import LAST
from convtrain.training.checkpoint_file import (
    RANKING,
    Found,
    load_checkpoint,
    save_checkpoint,
    step_of,
)
from convtrain.training.checkpoint_file import Checkpoint as Content
from convtrain.training.position import validation_follows
from convtrain.training.sharding import load_weights
from convtrain.training.task import Task

log = logging.getLogger("convtrain")

OLDER_NAME = "step{:06d}.ckpt"


class CheckpointFiles(CheckpointIO):
    """Reads and writes checkpoints by :mod:`convtrain.training.checkpoint_file`.

    Lightning's own plugin writes into TMPDIR first, without fsync and checksum, and reads remote
    checkpoints with ``weights_only=False``.
    """

    def __init__(self) -> None:
        self.found: Found | None = None  # a resume has read it already

    def save_checkpoint(
        self, checkpoint: Content, path: str | PathLike[str], storage_options: object = None
    ) -> None:
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self,
        path: str | PathLike[str],
        map_location: str | torch.device | None = None,
        weights_only: bool | None = True,
    ) -> Content:
        found, self.found = self.found, None
        if found is not None and str(found.path) == str(path):
            return found.content
        return load_checkpoint(str(path), map_location or "cpu")

    def remove_checkpoint(self, path: str | PathLike[str]) -> None:
        Path(path).unlink(missing_ok=True)


class BestCheckpoints(ModelCheckpoint):
    """The best checkpoints by a metric, such as ``best-epoch003-step000084.ckpt``.

    A run that was moved finds its checkpoints in the new place and forgets those that are gone.
    """

    @property
    def state_key(self) -> str:
        return RANKING

    def load_state_dict(self, state_dict: Content) -> None:
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
        self, trainer: pl.Trainer, monitor_candidates: dict[str, Tensor]
    ) -> None:
        _check_weights(trainer)
        try:
            super()._save_topk_checkpoint(trainer, monitor_candidates)
        except MisconfigurationException:
            key, metric = "callbacks.checkpoint.monitor", str(self.monitor)
            raise ConfigError(not_logged(key, metric, monitor_candidates)) from None

    def _should_remove_checkpoint(self, trainer: pl.Trainer, previous: str, current: str) -> bool:
        # Lightning would keep the checkpoint that the training was resumed from.
        return previous != current and Path(previous).parent == Path(str(self.dirpath))


class LastCheckpoint(Checkpoint):
    """``last.ckpt``, and ``keep - 1`` checkpoints before it, such as ``step000084.ckpt``.

    The end of the training is saved as well. Steps are optimiser steps. Lightning's
    ``ModelCheckpoint(save_last=True)`` does not save an epoch that is not among the best.
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
        self._step_of_last: int | None = None  # None if last.ckpt is not of this training
        self._save_after = ""  # "validation" or "epoch", if a save that is due waits for its end
        self._seen = 0
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._seen, self._saved_at = trainer.global_step, time.monotonic()
        self._step_of_last = trainer.global_step if self._is_resumed(trainer) else None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        step, done = trainer.global_step, batch_idx + 1
        if step == self._seen:  # no checkpoint within a step whose gradients still accumulate
            return
        self._seen = step
        if (self.every_n_steps and step % self.every_n_steps == 0) or self._is_time(trainer):
            # The checkpoint of a step includes what is computed and logged at this step.
            if done == trainer.num_training_batches:
                self._save_after = "epoch"
            elif validation_follows(trainer, done):
                self._save_after = "validation"
            else:
                self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._save_after == "validation":
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epochs = trainer.current_epoch + 1
        if (
            trainer.should_stop
            or epochs == trainer.max_epochs
            or trainer.global_step == trainer.max_steps
            or self._save_after
            or (self.every_n_epochs and epochs % self.every_n_epochs == 0)
        ):
            self.save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove older checkpoints that a kill after the last save left behind."""
        is_last = self._step_of_last is not None or self._is_resumed(trainer)
        if is_last and trainer.is_global_zero:
            self._prune(trainer.global_step)

    def save(self, trainer: pl.Trainer) -> None:
        """Save ``last.ckpt``; raise TrainingError if a weight is not finite or the disk is full."""
        _check_weights(trainer)
        step, previous = trainer.global_step, self._step_of_last
        if self.keep > 1 and trainer.is_global_zero and previous not in (None, step):
            with suppress(TrainingError, FileNotFoundError):  # the save reports a full disk
                hard_link(self.path, OLDER_NAME.format(previous))
        trainer.save_checkpoint(self.path)
        self._step_of_last, self._saved_at, self._save_after = step, time.monotonic(), ""
        if trainer.is_global_zero:
            self._prune(step)

    def _is_resumed(self, trainer: pl.Trainer) -> bool:
        return bool(trainer.ckpt_path) and Path(str(trainer.ckpt_path)) == self.path

    def _is_time(self, trainer: pl.Trainer) -> bool:
        if self.every_n_minutes is None:
            return False
        passed = time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        return bool(trainer.strategy.broadcast(passed))  # clocks differ, but all ranks must save

    def _prune(self, step: int) -> None:
        """Keep the newest, but none after ``step``, which a resume has undone."""
        names = self.path.parent.glob("step*.ckpt")
        older = sorted((p for p in names if re.fullmatch(r"step\d+", p.stem)), key=step_of)
        past = [path for path in older if step_of(path) < step]
        kept = past[-(self.keep - 1) :] if self.keep > 1 else []
        for path in older:
            if path not in kept:
                path.unlink(missing_ok=True)


def make_checkpoints(
    chosen: section.Checkpoint, folder: Path, *, validates: bool
) -> list[Checkpoint]:
    """Make the callbacks that keep the newest and, if the run validates, the best checkpoints."""
    last = LastCheckpoint(
        folder,
        every_n_epochs=chosen.every_n_epochs,
        every_n_steps=chosen.every_n_steps,
        every_n_minutes=chosen.every_n_minutes,
        keep=chosen.keep_last,
    )
    if not validates or not chosen.save_top_k:
        return [last]
    best = BestCheckpoints(
        dirpath=folder,
        filename="best-epoch{epoch:03d}-step{step:06d}",
        auto_insert_metric_name=False,
        enable_version_counter=False,
        monitor=chosen.monitor,
        mode=mode_of(chosen.monitor, chosen.mode),
        save_top_k=chosen.save_top_k,
        save_last=False,
        every_n_epochs=chosen.every_n_epochs,
    )
    return [best, last]


def load_best_weights(trainer: pl.Trainer) -> str | None:
    """Load the best weights; return their checkpoint's name, or None if none was kept."""
    best = trainer.checkpoint_callback
    if not isinstance(best, BestCheckpoints):
        return None
    if not best.best_model_path:
        log.warning(
            "callbacks.checkpoint.test_with=best: no best checkpoint was kept, so the last weights "
            "are tested"
        )
        return None
    trainer.strategy.barrier()
    path, task = Path(best.best_model_path), trainer.lightning_module
    if isinstance(task, Task):
        task.average = None  # the checkpoint has that of the best step in the weights' place
    load_weights(task, load_checkpoint(path)["state_dict"])
    return path.name


def _check_weights(trainer: pl.Trainer) -> None:
    """Raise before weights that are not finite replace a good checkpoint."""
    if isinstance(trainer.lightning_module, Task):
        trainer.lightning_module.check_weights()
