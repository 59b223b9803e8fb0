"""Save and restore the state of a training that Lightning's checkpoints lack."""

from typing import TypedDict

import pytorch_lightning as pl
from torch import Tensor

from convtrain.data.batches import Batches
from convtrain.training.checkpoint_file import RUN_ID, Checkpoint
from convtrain.training.log_entries import LogEntries, sum_over_devices
from convtrain.training.loggers.custom import Custom, restore_states, states_of
from convtrain.training.loggers.metrics_csv import MetricsCsv
from convtrain.training.loggers.tensorboard import TensorBoard
from convtrain.training.parts import Parts, named_parameters
from convtrain.training.position import (
    Position,
    Progress,
    loops_at,
    position_in,
    saved_position,
    validation_follows,
)
from convtrain.training.sharding import divided_like, gathered


class States(TypedDict, total=False):
    """The state of custom loggers in a checkpoint, by the override that named each."""

    loggers: dict[str, dict[str, object]]


class Logged(States):
    """The state of the log in a checkpoint."""

    sums: Tensor  # RunningMetrics.saved(), summed over the devices
    logged_step: int
    written: dict[str, object]  # how much is in each logger's files, by the logger's class


class Resuming:
    """Saves and restores the place in the epoch, the running metrics and the gradients."""

    def __init__(self, parts: Parts, progress: Progress, entries: LogEntries) -> None:
        self.parts, self.progress, self.entries = parts, progress, entries
        self.loggers: Custom = {}
        self.run_id: str | None = None  # set on rank 0, which saves it in every checkpoint
        self._within_epoch: Logged | None = None
        self._loaded: Checkpoint = {}

    def end_within_epoch(self, trainer: pl.Trainer) -> None:
        """Keep the logged state of an epoch that ends early, where a longer training resumes."""
        self._within_epoch = self._logged(trainer)

    def save(self, trainer: pl.Trainer, checkpoint: Checkpoint) -> None:
        position = position_in(
            checkpoint["loops"]["fit_loop"],
            epoch=trainer.current_epoch,
            batches=trainer.num_training_batches,
            validated=self.progress.validated,
        )
        checkpoint["position"] = position._asdict()
        checkpoint[RUN_ID] = self.run_id
        checkpoint["progress"] = {
            **self._logged(trainer),
            "cut": self._within_epoch,
            "metrics": dict(self.entries.newest),
            "arrays": dict(self.entries.arrays),
            "epochs": self.progress.epochs,
            "stopped_within": _limits(trainer) if trainer.should_stop else None,
        }
        if _accumulates(trainer, position):
            named = named_parameters(self.parts)
            checkpoint["gradients"] = {n: gathered(p.grad) for n, p in named if p.grad is not None}

    def load(self, trainer: pl.Trainer, checkpoint: Checkpoint) -> None:
        """Restore what the start needs; remove log entries that the resumed run writes again."""
        if (position := saved_position(checkpoint)) is None:
            return
        loops, saved = checkpoint["loops"], checkpoint["progress"]
        loops["fit_loop"] = loops_at(position, loops["fit_loop"])
        self.entries.newest.update(saved["metrics"])
        self.entries.arrays.update(saved.get("arrays", {}))
        self.progress.epochs = saved["epochs"]
        steps = checkpoint["global_step"]
        trainer.should_stop = saved["stopped_within"] == _limits(trainer)
        if saved["cut"] and not trainer.should_stop and steps != trainer.max_steps:
            checkpoint["progress"] = saved = {**saved, **saved["cut"]}
        for name, logger in file_loggers(trainer).items():
            logger.forget_after(steps, saved.get("written", {}).get(name))
        restore_states(self.loggers, saved.get("loggers", {}))
        self._loaded = checkpoint

    def start(self, trainer: pl.Trainer) -> None:
        """Restore the rest, now that loaders and gradients can exist."""
        loaded, self._loaded = self._loaded, {}
        if (position := saved_position(loaded)) is None:
            return
        saved, progress, steps = loaded["progress"], self.progress, trainer.global_step
        if not position.ended:
            progress.batch = position.batch
            progress.at, progress.doing = (steps, position.epoch, position.batch - 1), "after "
            if position.validated:
                progress.validated = (position.epoch, position.batch)
            loader = trainer.train_dataloader
            if isinstance(loader, Batches):
                loader.load_state_dict({"epoch": position.epoch, "position": position.batch})
            if trainer.is_global_zero:  # the sums are those of all devices
                self.entries.running["fit"].restore(saved["sums"])
            # Lightning counts the step again when it returns to a validation.
            follows = validation_follows(trainer, position.batch)
            steps -= follows and not _accumulates(trainer, position)
        trainer.fit_loop.epoch_loop._batches_that_stepped = steps
        gradients = loaded.get("gradients", {})
        for name, parameter in named_parameters(self.parts):
            if name in gradients:
                parameter.grad = divided_like(parameter, gradients[name])
        self.entries.logged_step = saved["logged_step"]

    def _logged(self, trainer: pl.Trainer) -> Logged:
        logged: Logged = {
            "sums": sum_over_devices(trainer, self.entries.running["fit"].saved()),
            "logged_step": self.entries.logged_step,
            "written": {name: each.written for name, each in file_loggers(trainer).items()},
        }
        if states := states_of(self.loggers):
            logged["loggers"] = states
        return logged


def file_loggers(trainer: pl.Trainer) -> dict[str, MetricsCsv | TensorBoard]:
    """Return the loggers that write files of the run, by their classes' names."""
    found = (each for each in trainer.loggers if isinstance(each, MetricsCsv | TensorBoard))
    return {type(logger).__name__: logger for logger in found}


def _accumulates(trainer: pl.Trainer, position: Position) -> bool:
    return bool(position.batch % trainer.accumulate_grad_batches) and not position.complete


def _limits(trainer: pl.Trainer) -> list[int | None]:
    return [trainer.max_epochs, trainer.max_steps]
