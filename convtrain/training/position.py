"""Where a checkpoint stands, and how Lightning's loops are told to go on from there.

What Lightning 2.6 saves of its loops depends on the hook that saved, and it goes on from some of
these states with a validation left out, an epoch's end run twice, or the rest of an epoch lost.
So a checkpoint says where it stands in words of its own, and when it is loaded the loops' part of
it, plain containers, is written anew: always after a whole batch, or between two epochs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl


@dataclass(frozen=True)
class Position:
    """A place in a training, between two batches.

    Attributes:
        epoch: the epoch that is under way, counted from 0, or that has just ended.
        batch: how many of its batches are done.
        complete: these were all.
        validated: the validation that follows this batch, if one does, is done.
        ended: the epoch's end, with all that is computed and logged there, is done too.
    """

    epoch: int
    batch: int
    complete: bool
    validated: bool
    ended: bool


def position_in(
    loops: Mapping[str, Any], *, epoch: int, batches: int | float, validated: tuple[int, int] | None
) -> Position:
    """Tell where a training stands that is being saved.

    Args:
        loops: the state of Lightning's fit loop, as a checkpoint has it.
        epoch: that is under way.
        batches: of an epoch.
        validated: epoch and batch of the last validation.
    """
    batch = loops["epoch_loop.batch_progress"]["current"]["processed"]
    epochs = loops["epoch_progress"]["current"]
    complete = batch >= batches
    return Position(
        epoch=epoch,
        batch=batch,
        complete=complete,
        validated=validated == (epoch, batch),
        ended=complete and epochs["processed"] > epochs["completed"],
    )


def loops_at(position: Position, loops: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of Lightning's fit loop that makes it go on from a place."""
    epochs, batch = position.epoch + 1, 0 if position.ended else position.batch
    total = loops["epoch_loop.batch_progress"]["total"]["processed"]
    # A validation that stopped within its first batch is one that Lightning does from its start.
    begun, done = (0, 0) if position.validated or position.ended else (1, 0)
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
        val_key: {**loops[val_key], **_both(_counts(begun, done)), "is_last_batch": False},
    }


def validation_follows(trainer: pl.Trainer, batch: int) -> bool:
    """Tell whether there is a validation after the first ``batch`` batches of an epoch."""
    every = trainer.val_check_batch
    if not trainer.enable_validation or every is None:
        return False
    return batch % every == 0 or is_last_step(trainer)


def is_last_step(trainer: pl.Trainer) -> bool:
    """Tell whether ``trainer.max_steps`` is reached."""
    return trainer.global_step >= trainer.max_steps > 0


def saved_position(checkpoint: Mapping[str, Any]) -> Position | None:
    """Return where a checkpoint stands, or None for one that does not say."""
    saved = checkpoint.get("position")
    return None if saved is None else Position(**saved)


def as_saved(position: Position) -> dict[str, Any]:
    """Return a position as a checkpoint keeps it."""
    return asdict(position)


def _counts(begun: int, done: int) -> dict[str, int]:
    return {"ready": begun, "started": begun, "processed": done, "completed": done}


def _both(counts: dict[str, int]) -> dict[str, dict[str, int]]:
    return {"total": counts, "current": dict(counts)}
