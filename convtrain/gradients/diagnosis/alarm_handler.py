"""What happens when the gradients are in trouble: a line, a checkpoint, or the end of the run."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from convtrain.data.batches import Batch
from convtrain.errors import TrainingError
from convtrain.gradients.diagnosis.online import Alarm, Block, Detector
from convtrain.gradients.diagnosis.replay import digest_of, replay_step
from convtrain.gradients.record.microbatches import MicroBatches
from convtrain.gradients.record.rows import Flushed, Row
from convtrain.gradients.record.store import ALARMS, FOLDER
from convtrain.training.checkpoint_file import save_checkpoint
from convtrain.training.task import Task

log = logging.getLogger("convtrain")

AlarmMode = Literal["warn", "stop", "checkpoint", "off"]
LISTED = 10  # dataset indices in a message


class AlarmHandler:
    """Looks at what was flushed, and acts on what it finds.

    Args:
        mode: ``warn`` says it; ``checkpoint`` says it and saves the state before the step, or
            where it was found; ``stop`` says it and ends the run; ``off`` does not look.
        run_dir: alarms are kept in ``gradients/alarms.jsonl``.
    """

    def __init__(self, mode: AlarmMode, run_dir: Path) -> None:
        self.mode, self._run_dir = mode, run_dir
        self._watch = Detector()
        self._to_act_on: list[Alarm] = []
        self._told_at_once: set[int] = set()
        self._broken = False

    def look(
        self, flushed: Flushed, fingerprints: np.ndarray, zero_filters: Mapping[str, np.ndarray]
    ) -> None:
        """Tell what is wrong in the rows of a flush; :meth:`act` acts on it."""
        if self.mode == "off":
            return
        steps = flushed.steps
        block = Block(
            names=flushed.names,
            step=steps["step"],
            norm=flushed.total,
            norms=flushed.norms,
            present=flushed.present,
            skipped=steps["skipped"],
            nonfinite=steps["nonfinite"],
            first_nonfinite=tuple(steps["first_nonfinite"]),
            batches=tuple(tuple(_indices(r.batches)) if r.broken else () for r in flushed.rows),
            fingerprints=fingerprints,
            zero_filters=zero_filters,
            loss=steps["loss"],
            loss_known=steps["loss_known"],
        )
        alarms = self._watch.look(block)
        self._tell(
            alarm
            for alarm in alarms
            if not (alarm.kind == "nonfinite" and alarm.step in self._told_at_once)
        )
        self._broken = bool(steps["nonfinite"][-1])

    def look_at_broken_step(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        row: Row,
        names: Sequence[str],
        gradients: Sequence[Tensor],
        micro_batches: MicroBatches,
    ) -> None:
        """Replay a step whose gradients are not finite, before it is done.

        Of several such steps in a row only the first is replayed: after it, the weights are broken.

        Args:
            names: of all parameters.
            gradients: of the row's columns.
        """
        assert row.broken
        self._told_at_once.add(row.step)
        if self.mode == "off" or self._broken:
            return
        self._broken = True
        origin, images = "", _indices(row.batches)
        if isinstance(module, Task) and all(
            isinstance(batch, Batch) for batch, _ in micro_batches.batches
        ):
            step = dict(zip((names[column] for column in row.columns), gradients, strict=True))
            origin, images = self._replay(trainer, module, row, step, micro_batches)
        name, others = names[row.broken[0]], _others(len(row.broken) - 1)
        shown = ", ".join(map(str, images[:LISTED])) + (", ..." if len(images) > LISTED else "")
        message = (
            f"step {row.step}: the gradient of {name} is not finite{others}{origin}; "
            f"images {shown or 'unknown'}; try a lower optimizer.lr or trainer.gradient_clip_val=1"
        )
        self._tell([Alarm("nonfinite", row.step, name, message)])

    def act(self, trainer: pl.Trainer) -> None:
        """Do what the mode says about all that was told since the last call.

        Raises:
            TrainingError: alarms stop the run, and there is one.
        """
        found, self._to_act_on = self._to_act_on, []
        if not found:
            return
        if self.mode == "checkpoint":
            name = f"alarm-step{trainer.global_step:09d}.ckpt"
            trainer.save_checkpoint(self._run_dir / "checkpoints" / name)
        if self.mode == "stop":
            raise TrainingError(f"alarm=stop: {found[0].message}; alarm=warn goes on regardless")

    def state_dict(self) -> dict[str, Any]:
        return {"watch": self._watch.state_dict(), "broken": self._broken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._watch.load_state_dict(state["watch"])
        self._broken = state["broken"]

    def _tell(self, alarms: Iterable[Alarm]) -> None:
        found = list(alarms)
        self._to_act_on += found
        if found:
            self._write(found)

    @rank_zero_only
    def _write(self, alarms: Sequence[Alarm]) -> None:
        folder = self._run_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ALARMS).open("a") as file:
            for alarm in alarms:
                file.write(json.dumps(vars(alarm)) + "\n")
        # What stops the run is the error that it ends with.
        for alarm in alarms[1:] if self.mode == "stop" else alarms:
            log.warning("%s", alarm.message)

    def _replay(
        self,
        trainer: pl.Trainer,
        task: Task,
        row: Row,
        step: Mapping[str, Tensor],
        micro_batches: MicroBatches,
    ) -> tuple[str, list[int]]:
        """Return what a replay tells, in words, and the images that it has to do with."""
        batches = [batch for batch, _ in micro_batches.batches]
        found, state = replay_step(trainer, task, micro_batches)
        row.losses = found.losses
        if trainer.world_size == 1:
            found.is_same = state["digest"] == digest_of(step)
        words = (
            f"; first non-finite in the {found.where}"
            if found.where
            else "; finite when it was replayed"
        )
        images = _indices(row.batches)
        if found.micro_batch is not None and len(batches) > 1:
            words += f", in micro-batch {found.micro_batch + 1} of {len(batches)}"
            images = _indices([batches[found.micro_batch].indices])
        saw_it = _first_that_saw_it(trainer, found.where)
        if trainer.global_rank == saw_it:
            path = self._run_dir / FOLDER / f"nonfinite-{row.step:012d}.pt"
            save_checkpoint({"step": row.step, "epoch": row.epoch, **state}, path)
            does = "reproduces it" + (f" on rank {saw_it}" if trainer.world_size > 1 else "")
            if not found.where or found.is_same is False:
                does = "holds it, but another run of it differs"
            words += f"; {path} {does}"
        return trainer.strategy.broadcast((words, images), src=saw_it)


def _first_that_saw_it(trainer: pl.Trainer, where: str) -> int:
    """Return the lowest rank whose own gradients were not finite; 0 where none's were."""
    if trainer.world_size == 1:
        return 0
    mine = trainer.global_rank if where else trainer.world_size
    found = torch.tensor(mine, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(found, reduce_op="min")) % trainer.world_size


def _indices(batches: Iterable[Tensor]) -> list[int]:
    return [index for batch in batches for index in batch.tolist()]


def _others(count: int) -> str:
    return f", nor that of {count} other{'s' if count > 1 else ''}" if count else ""
