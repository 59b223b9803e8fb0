"""The gradient recorder: a row for every optimiser step, at the cost of a kernel or two.

It reads ``p.grad`` in ``on_before_optimizer_step``: after the last backward pass, the scaler's
unscaling and the all-reduce, and before clipping. Results stay on the device until a flush.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from convtrain.gradients.diagnosis.alarm_handler import AlarmHandler, AlarmMode
from convtrain.gradients.record.flushing import Flusher
from convtrain.gradients.record.measurement import Measurement
from convtrain.gradients.record.microbatches import MicroBatches
from convtrain.gradients.record.overhead import Overhead
from convtrain.gradients.record.schedule import Plan
from convtrain.models.compiled import is_compiled
from convtrain.training.task import Task


class Recorder(pl.Callback):
    """Records a run's gradients; :mod:`convtrain.gradients.record.store` describes the files.

    It works on any LightningModule, under automatic and manual optimisation, with any number of
    optimisers. Weights, optimiser and random state have the same bits without it.

    Args:
        flush_every_n_steps: rows between two flushes; a killed process loses no more.
        max_bytes: limit of the record on disk; the plan is thinned until its forecast fits.
        max_overhead: largest share of the total time, in 0-1; the plan is thinned to fit.

    Attributes:
        overhead, overhead_share: seconds of recording, and their share of the training time.
    """

    def __init__(
        self,
        *,
        run_dir: Path,
        plan: Plan,
        flush_every_n_steps: int = 50,
        max_bytes: int = 2**30,
        max_overhead: float = 0.1,
        alarm: AlarmMode = "warn",
    ) -> None:
        self.overhead, self.overhead_share, self.bytes_written = Overhead(), 0.0, 0
        self._alarms = AlarmHandler(alarm, Path(run_dir))
        self._make_flusher = partial(
            Flusher, Path(run_dir), plan=plan, alarms=self._alarms, overhead=self.overhead,
            flush_every=flush_every_n_steps, max_bytes=max_bytes, max_overhead=max_overhead,
        )  # fmt: skip
        self._state: dict[str, Any] = {}  # from a checkpoint
        self._is_recording = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parts = pl_module.parts if isinstance(pl_module, Task) else {"": pl_module}
        self._can_capture = not is_compiled(parts[""])
        self._flusher = flusher = self._make_flusher(trainer=trainer, parts=parts)
        self._measurement = Measurement(trainer, pl_module, flusher, self.overhead)
        can_replay = self._measurement.decides_at_once and self._alarms.mode != "off"
        self._micro_batches = MicroBatches(parts, self.overhead, keeps_buffers=can_replay)
        self._parts: dict[str, Any] = {
            "watcher": self._alarms,
            "previous": self._measurement,
            "filters": flusher.filters,
            "micro_batches": self._micro_batches,
        }
        on_device = tree_map_only(Tensor, lambda t: t.to(pl_module.device), self._state)
        for key, state in on_device.items():
            self._parts[key].load_state_dict(state)
        self._is_recording = True
        self.overhead.start()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        if self._flusher.has_news:
            self._flusher.settle()
        with self.overhead:
            due = self._flusher.plan.due(trainer.global_step + 1)
            captures = self._can_capture and not due.isdisjoint(("distributions", "tensors"))
            self._micro_batches.begin(trainer, batch, batch_idx, captures=captures)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        began = time.perf_counter()
        found = self._measurement.before_step(
            optimizer, trainer.global_step + 1, self._micro_batches
        )
        if found is not None:
            self._flusher.add(*found, pl_module, self._micro_batches)
        self.overhead.seconds += time.perf_counter() - began

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, *_: object
    ) -> None:
        is_task = isinstance(pl_module, Task)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if pl_module.automatic_optimization and not is_task and isinstance(loss, Tensor):
            loss = loss * trainer.accumulate_grad_batches  # Lightning divided it by this
        with self.overhead:
            self._micro_batches.end(loss)
            if self._measurement.has_stepped:
                rows = self._measurement.end_step()
                self._micro_batches.complete(rows, losses_are_weighted=is_task)
                if self._flusher.is_full or any(row.tensors for row in rows):
                    self._flusher.flush(all_processes=True)
                    self._flusher.settle()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with self.overhead:
            self.bytes_written = self._flusher.flush_to_disk()
        self.overhead_share = self.overhead.share()
        self._alarms.act(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._is_recording:
            self._micro_batches.end()
            self._flusher.flush_after(exception)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._is_recording:
            self._flusher.close()

    def state_dict(self) -> dict[str, Any]:
        """Flush first, so that all steps up to the checkpoint are on disk."""
        if not self._is_recording:
            return self._state
        with self.overhead:
            self._flusher.flush_to_disk()
        return {key: part.state_dict() for key, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict
