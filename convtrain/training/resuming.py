"""What Lightning does not keep of a training: saved with a checkpoint, and taken up again."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convtrain.data.batches import Batches
from convtrain.training.checkpoint_file import RUN_ID
from convtrain.training.loggers.metrics_csv import MetricsCsv
from convtrain.training.loggers.tensorboard import TensorBoard
from convtrain.training.position import (
    as_saved,
    loops_at,
    position_in,
    saved_position,
    validation_follows,
)
from convtrain.training.sharding import divided_like, gathered

if TYPE_CHECKING:
    from convtrain.training.task import Task


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        at: step, epoch and batch that is trained on, or was the last.
        doing: what is done with that batch, or after it.
        batch: how many of this epoch's are begun.
        validated: epoch and batch of the last validation.
        logged_step: of the last entry of the log.
        cut: of an epoch that the training ends within, what :func:`save` keeps, from before its
            end. A training that is made longer goes on from there.
    """

    at: tuple[int, int, int] | None = None
    doing: str = ""
    batch: int = 0
    validated: tuple[int, int] | None = None
    logged_step: int = 0
    cut: dict[str, Any] | None = None

    def where(self) -> str:
        """Name the batch at work; steps count from 1, as in metrics.csv, and the others from 0."""
        if self.at is None:
            return f"{self.doing}the start" if self.doing else "before the first step"
        step, epoch, batch = self.at
        return f"{self.doing}step {step}, epoch {epoch}, batch {batch}"


def kept(task: "Task") -> dict[str, Any]:
    """Return what a checkpoint keeps of the sums and of the files, as they are."""
    loggers = [each for each in task.loggers if isinstance(each, TensorBoard | MetricsCsv)]
    return {
        "sums": task.over_devices(task.totals["fit"].saved()),
        "logged_step": task.progress.logged_step,
        "written": {type(logger).__name__: logger.written for logger in loggers},
    }


def save(task: "Task", checkpoint: dict[str, Any]) -> None:
    """Add to a checkpoint what Lightning does not put into it."""
    trainer, progress = task.trainer, task.progress
    position = position_in(
        checkpoint["loops"]["fit_loop"],
        epoch=task.current_epoch,
        batches=trainer.num_training_batches,
        validated=progress.validated,
    )
    checkpoint["position"] = as_saved(position)
    checkpoint[RUN_ID] = task.run_id
    checkpoint["progress"] = {
        **kept(task),
        "cut": progress.cut,
        "metrics": dict(task.metrics),
        "epochs": task.epochs,
        "stopped_within": _limits(task) if trainer.should_stop else None,
    }
    if position.batch % trainer.accumulate_grad_batches and not position.complete:
        named = task.model.named_parameters()
        checkpoint["gradients"] = {n: gathered(p.grad) for n, p in named if p.grad is not None}


def load(task: "Task", checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Take up what does not wait for the training; return what :func:`go_on` takes up.

    What the run has written after the checkpoint is written again, so it is taken out of the files
    before anything is added to them.
    """
    task.trainer.precision_plugin.convert_module(task)  # or float64 weights would be rounded
    position = saved_position(checkpoint)
    if position is None:
        return {}
    loops, saved = checkpoint["loops"], checkpoint["progress"]
    loops["fit_loop"] = loops_at(position, loops["fit_loop"])
    task.metrics.update(saved["metrics"])
    task.epochs = saved["epochs"]
    trainer, steps = task.trainer, checkpoint["global_step"]
    trainer.should_stop = saved["stopped_within"] == _limits(task)
    if saved["cut"] and not trainer.should_stop and steps != trainer.max_steps:
        saved = {**saved, **saved["cut"]}
    for logger in task.loggers:
        if isinstance(logger, TensorBoard | MetricsCsv):
            written = saved.get("written", {}).get(type(logger).__name__)
            logger.forget_after(steps, written)
    return {**saved, "position": position, "gradients": checkpoint.get("gradients", {})}


def go_on(task: "Task", saved: dict[str, Any]) -> None:
    """Take up the place in the epoch, the sums, and half accumulated gradients."""
    trainer, progress, position = task.trainer, task.progress, saved["position"]
    stepped = task.global_step
    if not position.ended:
        progress.batch = position.batch
        progress.at, progress.doing = (stepped, position.epoch, position.batch - 1), "after "
        if position.validated:
            progress.validated = (position.epoch, position.batch)
        loader = trainer.train_dataloader
        if isinstance(loader, Batches):
            loader.load_state_dict({"epoch": position.epoch, "position": position.batch})
        if task.global_rank == 0:  # they are those of all devices together
            task.totals["fit"].restore(saved["sums"])
        # Lightning counts the step once more where it comes back to a validation.
        accumulates = position.batch % trainer.accumulate_grad_batches and not position.complete
        stepped -= validation_follows(trainer, position.batch) and not accumulates
    trainer.fit_loop.epoch_loop._batches_that_stepped = stepped
    for name, parameter in task.model.named_parameters():
        if name in saved["gradients"]:
            parameter.grad = divided_like(parameter, saved["gradients"][name])
    progress.logged_step = saved["logged_step"]


def _limits(task: "Task") -> list[int | None]:
    return [task.trainer.max_epochs, task.trainer.max_steps]
