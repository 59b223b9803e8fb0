"""The gradient recorder: a row for every optimiser step, at the cost of a kernel or two.

It reads ``p.grad`` in ``on_before_optimizer_step``: after the last backward pass of a step, after
the scaler has unscaled, after devices have been averaged, and before clipping. Its results stay on
the device until they are flushed, by default every 50 rows.
"""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from convtrain.errors import TrainingError
from convtrain.gradients.diagnosis.alarm_handler import AlarmHandler, AlarmMode
from convtrain.gradients.record.flushing import Flusher
from convtrain.gradients.record.measurement import Measurement
from convtrain.gradients.record.microbatches import MicroBatches
from convtrain.gradients.record.overhead import Overhead
from convtrain.gradients.record.schedule import Plan
from convtrain.gradients.record.statistics import is_on_cpu
from convtrain.gradients.record.steps import StepRecord
from convtrain.models.compiled import is_compiled
from convtrain.process.atomic import comes_from_full_disk
from convtrain.training.task import Task

log = logging.getLogger("convtrain")


class Recorder(pl.Callback):
    """Records the gradients of a run; :mod:`convtrain.gradients.record.store` says what is kept.

    It works on any LightningModule, under automatic and manual optimisation, with one optimiser or
    several. It changes nothing: weights, optimiser and random state are the same bits without it.

    Args:
        run_dir: the run's directory.
        plan: what is recorded, and when.
        flush_every_n_steps: rows between two flushes. A process that is killed loses no more.
        max_bytes: of the record on disk; the plan is thinned until its forecast keeps within.
        max_overhead: share of the whole time, in 0-1; the plan is thinned to keep within it.
        alarm: what is done when gradients are in trouble.

    Attributes:
        overhead: how long recording took, and ``overhead_share``, of the training time.
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
        self._waits_at_each_step = flush_every_n_steps == 1
        self._trainer: pl.Trainer | None = None  # while there is something to record
        self._restored: dict[str, Any] = {}  # from a checkpoint
        self._rows: list[StepRecord] = []  # of the current step, one for each optimiser
        self._has_stepped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer = trainer
        model = pl_module.model if isinstance(pl_module, Task) else pl_module
        self._can_capture = not is_compiled(model)
        at_once = self._waits_at_each_step or is_on_cpu(next(model.parameters(), torch.empty(0)))
        self._flusher = self._make_flusher(trainer=trainer, model=model)
        self._measurement = Measurement(
            trainer, pl_module, self._flusher.parameters, self.overhead,
            has_statistics=self._flusher.plan.statistics is not None, decides_at_once=at_once,
        )  # fmt: skip
        replays = at_once and self._alarms.mode != "off"
        self._micro_batches = MicroBatches(model, self.overhead, keeps_buffers=replays)
        self._parts: dict[str, Any] = {
            "watcher": self._alarms,
            "previous": self._measurement,
            "filters": self._flusher.filters,
            "micro_batches": self._micro_batches,
        }
        restored = tree_map_only(Tensor, lambda t: t.to(pl_module.device), self._restored)
        for key, state in restored.items():
            self._parts[key].load_state_dict(state)
        self.overhead.start()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
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
        self._has_stepped = True
        found = self._measurement.before_step(
            optimizer, trainer.global_step + 1, self._flusher.plan, self._micro_batches
        )
        if found is not None:
            row, gradients = found
            self._flusher.add(row)
            self._rows.append(row)
            names = self._flusher.parameters.names
            if row.broken and row.loss_scale is None:
                self._alarms.look_at_broken_step(
                    trainer, pl_module, row, names, gradients, self._micro_batches
                )
                self._alarms.act(trainer)
            if self._alarms.mode != "off":
                self._flusher.filters.look([names[column] for column in row.columns], gradients)
        self.overhead.seconds += time.perf_counter() - began

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        with self.overhead:
            self._micro_batches.end(_loss_in(outputs, trainer, pl_module))
            if self._has_stepped:
                self._end_step(pl_module)

    def _end_step(self, pl_module: pl.LightningModule) -> None:
        """Complete the rows of the current step, and flush where that is due."""
        self._has_stepped = False
        self._measurement.end_step()
        rows, self._rows = self._rows, []
        self._micro_batches.complete(rows, losses_are_weighted=isinstance(pl_module, Task))
        if self._flusher.is_full or any(row.tensors for row in rows):
            self._flusher.flush(all_processes=True)
            self._flusher.settle()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._flush_and_wait()
        self.overhead_share = self.overhead.share()
        self.bytes_written = self._flusher.bytes_written
        self._alarms.act(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._trainer is None:
            return
        self._micro_batches.end(None)
        try:
            self._flusher.flush(all_processes=False)
            self._flusher.wait()
        except TrainingError as error:
            if not comes_from_full_disk(exception):  # which is reported already
                log.error("%s", error)  # the run ends with the first exception

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._trainer is not None:
            self._flusher.close()

    def state_dict(self) -> dict[str, Any]:
        """Flush, so that all steps up to the checkpoint are on disk, and return what resumes."""
        if self._trainer is None:
            return self._restored
        self._flush_and_wait()
        return {key: part.state_dict() for key, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def _flush_and_wait(self) -> None:
        with self.overhead:
            self._flusher.flush(all_processes=True)
            self._flusher.wait()


def _loss_in(outputs: Any, trainer: pl.Trainer, module: pl.LightningModule) -> Tensor | None:
    """Return a micro-batch's loss, as the module computed it."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    if not isinstance(loss, Tensor):
        return None
    # Lightning has divided it by the number of micro-batches. A Task weights it instead.
    is_divided = module.automatic_optimization and not isinstance(module, Task)
    return loss.detach() * trainer.accumulate_grad_batches if is_divided else loss.detach()
