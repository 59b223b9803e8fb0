"""Act on alarms: log a warning, save a checkpoint, or stop the run."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from convtrain.data.batches import Batch
from convtrain.errors import TrainingError
from convtrain.gradients.diagnosis.online import Detector, and_others
from convtrain.gradients.diagnosis.replay import digest_of, replay_step
from convtrain.gradients.diagnosis.rules import NONFINITE, Alarm, listed
from convtrain.gradients.record.microbatches import MicroBatches
from convtrain.gradients.record.steps import FlushedSteps, StepRecord
from convtrain.gradients.record.store import ALARMS, FOLDER
from convtrain.training.checkpoint_file import save_checkpoint
from convtrain.training.task import Task

log = logging.getLogger("convtrain")

AlarmMode = Literal["warn", "stop", "checkpoint", "off"]


class AlarmHandler:
    """Passes each flush to the detector, and acts on its alarms as ``mode`` says.

    ``checkpoint`` saves the state before the optimiser applies non-finite gradients.
    """

    def __init__(self, mode: AlarmMode, run_dir: Path) -> None:
        self.mode, self._run_dir = mode, run_dir
        self._detector = Detector()
        self._to_act_on: list[Alarm] = []
        self._replayed: set[int] = set()
        self._broken = False

    def look(self, flushed: FlushedSteps) -> None:
        """Report the trouble in a flush; :meth:`act` then acts on it."""
        if self.mode == "off":
            return
        alarms = self._detector.look(flushed)
        known = [a for a in alarms if a.kind == NONFINITE.name and a.step in self._replayed]
        self._report([alarm for alarm in alarms if alarm not in known])
        self._broken = bool(flushed.steps["nonfinite"][-1])

    def look_at_broken_step(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        row: StepRecord,
        names: Sequence[str],
        gradients: Sequence[Tensor],
        micro_batches: MicroBatches,
    ) -> None:
        """Replay a step with non-finite gradients before the optimiser applies it.

        Only the first of several such steps in a row is replayed: it leaves the weights broken.
        ``names`` has all parameters; ``gradients`` has those of ``row.columns``.
        """
        assert row.broken
        self._replayed.add(row.step)
        if self.mode == "off" or self._broken:
            return
        self._broken = True
        origin, images = "", row.images
        batches = [batch for batch, _ in micro_batches.batches]
        if isinstance(module, Task) and all(isinstance(batch, Batch) for batch in batches):
            step = {names[c]: gradient for c, gradient in zip(row.columns, gradients, strict=True)}
            origin, images = self._replay(trainer, module, row, step, micro_batches)
        first = names[row.broken[0]]
        who = f"{and_others(first, len(row.broken))}{origin}; images {listed(images) or 'unknown'}"
        self._report([NONFINITE.alarm(row.step, first, who=who)])

    def act(self, trainer: pl.Trainer) -> None:
        """Act on all alarms since the last call; the mode ``stop`` raises TrainingError."""
        found, self._to_act_on = self._to_act_on, []
        if found and self.mode == "checkpoint":
            name = f"alarm-step{trainer.global_step:09d}.ckpt"
            trainer.save_checkpoint(self._run_dir / "checkpoints" / name)
        if found and self.mode == "stop":
            raise TrainingError(f"alarm=stop: {found[0].message}; alarm=warn trains on regardless")

    def state_dict(self) -> dict[str, object]:
        return {"watch": self._detector.state_dict(), "broken": self._broken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._detector.load_state_dict(state["watch"])
        self._broken = state["broken"]

    def _report(self, alarms: Sequence[Alarm]) -> None:
        self._to_act_on += alarms
        if alarms:
            self._write(alarms)

    @rank_zero_only
    def _write(self, alarms: Sequence[Alarm]) -> None:
        folder = self._run_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ALARMS).open("a") as file:
            file.writelines(json.dumps(alarm._asdict()) + "\n" for alarm in alarms)
        # With ``stop``, the run's final error shows the first alarm.
        for alarm in alarms[1:] if self.mode == "stop" else alarms:
            log.warning("%s", alarm.message)

    def _replay(
        self,
        trainer: pl.Trainer,
        task: Task,
        row: StepRecord,
        step: Mapping[str, Tensor],
        micro_batches: MicroBatches,
    ) -> tuple[str, list[int]]:
        """Return the origin in words and the images involved, the same on all ranks."""
        batches = [batch for batch, _ in micro_batches.batches]
        found, state = replay_step(trainer, task, micro_batches)
        row.losses = found.losses
        if trainer.world_size == 1:
            found.is_same = state["digest"] == digest_of(step)
        words = f"; first non-finite in the {found.where}"
        images = row.images
        if not found.where:
            words = "; finite when it was replayed"
        elif found.micro_batch is not None and len(batches) > 1:
            words += f", in micro-batch {found.micro_batch + 1} of {len(batches)}"
            images = batches[found.micro_batch].indices.tolist()
        origin = _lowest_rank_of_origin(trainer, found.where)
        if trainer.global_rank == origin:
            path = self._run_dir / FOLDER / f"nonfinite-{row.step:012d}.pt"
            save_checkpoint({"step": row.step, "epoch": row.epoch, **state}, path)
            if not found.where or found.is_same is False:
                words += f"; {path} holds the step, but a replay differs"
            else:
                on_rank = f" on rank {origin}" if trainer.world_size > 1 else ""
                words += f"; {path} reproduces it{on_rank}"
        return trainer.strategy.broadcast((words, images), src=origin)


def _lowest_rank_of_origin(trainer: pl.Trainer, where: str) -> int:
    """Return the lowest rank whose own gradients were not finite; 0 if none were."""
    if trainer.world_size == 1:
        return 0
    mine = trainer.global_rank if where else trainer.world_size
    found = torch.tensor(mine, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(found, reduce_op="min")) % trainer.world_size
