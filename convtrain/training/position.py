"""How far a training has come: in memory, in a checkpoint, and in Lightning's loops for it.

Lightning 2.6 saves a state that depends on the hook that saved. From some of these states it
resumes without a validation, runs the end of an epoch twice, or loses the rest of an epoch. So the
saved state is replaced at loading: it is always after a whole batch, or between two epochs.
"""

from dataclasses import dataclass
from typing import NamedTuple

import pytorch_lightning as pl

from convtrain.errors import TrainingError
from convtrain.training.checkpoint_file import Checkpoint


class Position(NamedTuple):
    """A place in a training, between two batches."""

    epoch: int  # the current epoch, or the one that has just ended, from 0
    batch: int  # number of its batches that are done
    complete: bool  # all of its batches are done
    validated: bool  # if a validation follows this batch, it is done
    ended: bool  # everything that is computed and logged at the end of the epoch is done


@dataclass
class Progress:
    """How far a training has come, for error lines and checkpoints."""

    at: tuple[int, int, int] | None = None  # current or last step (from 1), epoch, batch (from 0)
    doing: str = ""  # prefix for error lines, such as "after "; empty while the batch trains
    batch: int = 0  # number of batches of this epoch that have begun
    epochs: int = 0  # number of epochs that have ended, including a last one that ended early
    validated: tuple[int, int] | None = None  # epoch and batch of the last validation

    def enter(self, step: int, epoch: int, batch: int) -> None:
        """Note that a batch begins; raise TrainingError if it has begun already."""
        if self.at == (step, epoch, batch) and not self.doing:
            raise TrainingError(
                f"{self.where()}: the optimiser computes the loss of a batch more than once, which "
                f"metrics and gradient record would count as several batches; its step() must call "
                f"the closure once"
            )
        self.at, self.doing, self.batch = (step, epoch, batch), "", batch + 1

    def where(self) -> str:
        """Return the place for an error line, such as ``after step 3, epoch 0, batch 2``."""
        if self.at is None:
            return f"{self.doing}the start" if self.doing else "before the first step"
        step, epoch, batch = self.at
        return f"{self.doing}step {step}, epoch {epoch}, batch {batch}"


def position_in(
    loops: Checkpoint, *, epoch: int, batches: int | float, validated: tuple[int, int] | None
) -> Position:
    """Return the position of a training from the state of Lightning's fit loop."""
    batch = loops["epoch_loop.batch_progress"]["current"]["processed"]
    epochs = loops["epoch_progress"]["current"]
    complete = batch >= batches
    ended = complete and epochs["processed"] > epochs["completed"]
    return Position(epoch, batch, complete, validated == (epoch, batch), ended)


def saved_position(checkpoint: Checkpoint) -> Position | None:
    """Return the position that a checkpoint holds; None if it holds none."""
    saved = checkpoint.get("position")
    return None if saved is None else Position(**saved)


def loops_at(position: Position, loops: Checkpoint) -> dict[str, object]:
    """Return the state of Lightning's fit loop that resumes at a position."""
    epochs, batch = position.epoch + 1, 0 if position.ended else position.batch
    total = loops["epoch_loop.batch_progress"]["total"]["processed"]
    # Lightning repeats a validation from its start if it was interrupted in its first batch.
    started, done = (0, 0) if position.validated or position.ended else (1, 0)
    val_key = "epoch_loop.val_loop.batch_progress"
    return {
        **loops,
        "state_dict": {"combined_loader": [{"epoch": position.epoch, "position": batch}]},
        "epoch_progress": _both(_counts(epochs, epochs if position.ended else epochs - 1)),
        "epoch_loop.batch_progress": {
            "total": _counts(total, total),
            "current": _counts(batch, batch),
            "is_last_batch": position.complete and not position.ended,
        },
        val_key: {**loops[val_key], **_both(_counts(started, done)), "is_last_batch": False},
    }


def validation_follows(trainer: pl.Trainer, batch: int) -> bool:
    """Return whether a validation follows the first ``batch`` batches of an epoch."""
    every = trainer.val_check_batch
    if not trainer.enable_validation or every is None:
        return False
    return batch % every == 0 or is_last_step(trainer)


def is_last_step(trainer: pl.Trainer) -> bool:
    """Return whether the training has reached ``trainer.max_steps``."""
    return trainer.global_step >= trainer.max_steps > 0


def _counts(started: int, done: int) -> dict[str, int]:
    return {"ready": started, "started": started, "processed": done, "completed": done}


def _both(counts: dict[str, int]) -> dict[str, dict[str, int]]:
    return {"total": counts, "current": dict(counts)}
