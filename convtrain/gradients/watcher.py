"""What happens when the gradients are in trouble: a line, a checkpoint, or the end of the run."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch

from convtrain.data.batches import Batch
from convtrain.errors import TrainingError
from convtrain.gradients.alarms import Alarm, Block, Watch
from convtrain.gradients.replay import find_birth
from convtrain.gradients.rows import Flushed, Row
from convtrain.gradients.store import FOLDER
from convtrain.training.checkpoint_file import save_checkpoint
from convtrain.training.task import Task

log = logging.getLogger("convtrain")

AlarmMode = Literal["warn", "stop", "checkpoint", "off"]
LISTED = 10  # dataset indices in a message


class Watcher:
    """Looks at what was flushed, and acts on what it finds.

    Args:
        mode: ``warn`` says it; ``checkpoint`` says it and saves the state before the step, or
            where it was found; ``stop`` says it and ends the run; ``off`` does not look.
        run_dir: alarms are kept in ``gradients/alarms.jsonl``.
    """

    def __init__(self, mode: AlarmMode, run_dir: Path) -> None:
        self.mode, self._run_dir = mode, run_dir
        self._watch = Watch()
        self._found: list[Alarm] = []
        self._told_at_once: set[int] = set()
        self._broken = False

    def look(
        self, flushed: Flushed, fingerprints: np.ndarray, zero_filters: Mapping[str, np.ndarray]
    ) -> None:
        """Find what is wrong in the rows of a flush; :meth:`act` acts on it."""
        if self.mode == "off":
            return
        block = Block(
            names=flushed.names,
            step=flushed.steps["step"],
            norm=flushed.total,
            norms=flushed.norms,
            present=flushed.present,
            skipped=flushed.steps["skipped"],
            nonfinite=flushed.steps["nonfinite"],
            first_nonfinite=tuple(flushed.steps["first_nonfinite"]),
            batches=tuple(_indices(row) if row.broken else () for row in flushed.rows),
            fingerprints=fingerprints,
            zero_filters=zero_filters,
        )
        alarms = self._watch.look(block)
        self._found += [
            alarm
            for alarm in alarms
            if not (alarm.kind == "nonfinite" and alarm.step in self._told_at_once)
        ]
        self._broken = bool(flushed.steps["nonfinite"][-1])

    def look_at_broken_step(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        row: Row,
        names: Sequence[str],
        batches: Sequence[tuple[Any, int]],
    ) -> None:
        """Replay a step whose gradients are not finite, before it is done.

        Of several such steps in a row only the first is replayed: after it, the weights are broken.
        """
        assert row.broken
        self._told_at_once.add(row.step)
        if self.mode == "off" or self._broken:
            return
        self._broken = True
        where = reproduction = ""
        if isinstance(module, Task) and all(isinstance(batch, Batch) for batch, _ in batches):
            birth = find_birth(module, batches, trainer.precision_plugin.train_step_context())
            row.losses = birth.losses
            where = f"; born in the {birth.where}" if birth.where else ""
            reproduction = self._save(trainer, module, row, batches, birth.where)
        indices = [index for batch in row.batches for index in batch.tolist()]
        shown = ", ".join(map(str, indices[:LISTED])) + (", ..." if len(indices) > LISTED else "")
        message = (
            f"step {row.step}: the gradient of {names[row.broken[0]]} is not finite"
            f"{_others(len(row.broken) - 1)}{where}; images {shown or 'unknown'}{reproduction}; "
            f"try a lower optimizer.lr or trainer.gradient_clip_val=1"
        )
        self._found.append(Alarm("nonfinite", row.step, names[row.broken[0]], message))

    def act(self, trainer: pl.Trainer) -> None:
        """Tell what was found since the last call.

        Raises:
            TrainingError: alarms stop the run, and there is one.
        """
        found, self._found = self._found, []
        if not found:
            return
        if trainer.is_global_zero:
            self._keep(found)
            for alarm in found:
                log.warning("%s", alarm.message)
        if self.mode == "checkpoint":
            path = self._run_dir / "checkpoints" / f"alarm-step{found[0].step:09d}.ckpt"
            trainer.save_checkpoint(path)
        if self.mode == "stop":
            raise TrainingError(f"alarm=stop: {found[0].message}; alarm=warn goes on regardless")

    def state_dict(self) -> dict[str, Any]:
        return {"watch": self._watch.state_dict(), "broken": self._broken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._watch.load_state_dict(state["watch"])
        self._broken = state["broken"]

    def _keep(self, alarms: Sequence[Alarm]) -> None:
        folder = self._run_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "alarms.jsonl").open("a") as file:
            for alarm in alarms:
                file.write(json.dumps(vars(alarm)) + "\n")

    def _save(
        self,
        trainer: pl.Trainer,
        task: Task,
        row: Row,
        batches: Sequence[tuple[Batch, int]],
        where: str,
    ) -> str:
        """Save what it takes to do the step again: tensors and plain containers."""
        if not trainer.is_global_zero:
            return ""
        path = self._run_dir / FOLDER / f"nonfinite-{row.step:012d}.pt"
        state: dict[str, Any] = {
            "step": row.step,
            "epoch": row.epoch,
            "born_in": where,
            "seed": task.seed,
            "batch_idx": [batch_idx for _, batch_idx in batches],
            "indices": [batch.indices.cpu() for batch, _ in batches],
            "random_state": torch.get_rng_state(),
            "norms": torch.as_tensor(row.norms).cpu(),
            "buffers": dict(task.model.named_buffers()),
            "weights": {name: p.detach() for name, p in task.model.named_parameters()},
        }
        save_checkpoint(state, path)
        return f"; {path} reproduces it"


def _indices(row: Row) -> tuple[int, ...]:
    return tuple(index for batch in row.batches for index in batch.tolist())


def _others(count: int) -> str:
    return f", nor that of {count} other{'s' if count > 1 else ''}" if count else ""
