"""Flush records of steps from the device to the alarms and to the disk, within the limits."""

import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from convtrain.errors import TrainingError
from convtrain.gradients.diagnosis.alarm_handler import AlarmHandler
from convtrain.gradients.record.disk_space import RecordSize, fit_on_disk
from convtrain.gradients.record.microbatches import MicroBatches
from convtrain.gradients.record.overhead import Budget, Overhead
from convtrain.gradients.record.parameters import Parameters, without_optimizer
from convtrain.gradients.record.schedule import Plan, describe_plan
from convtrain.gradients.record.statistics import checksums
from convtrain.gradients.record.steps import StepRecord, flush_steps, step_losses
from convtrain.gradients.record.writer import Writer
from convtrain.gradients.record.zero_filters import ZeroFilters
from convtrain.models.compiled import is_compiled
from convtrain.process.atomic import comes_from_full_disk
from convtrain.text import format_bytes
from convtrain.training.epochs import epoch_steps, training_steps
from convtrain.training.parts import Parts

log = logging.getLogger("convtrain")


class Flusher:
    """Buffers records of steps between flushes, and thins ``plan`` to keep within the limits."""

    def __init__(
        self,
        run_dir: Path,
        trainer: pl.Trainer,
        parts: Parts,
        plan: Plan,
        alarms: AlarmHandler,
        overhead: Overhead,
        *,
        flush_every: int,
        max_bytes: int,
        max_overhead: float,
    ) -> None:
        self._trainer, self._alarms, self.flush_every = trainer, alarms, flush_every
        model, steps = parts[""], training_steps(trainer)
        epochs = math.ceil(steps / max(epoch_steps(trainer), 1))
        saves = epochs if trainer.checkpoint_callbacks else 0
        size = RecordSize(steps, rows_per_flush=flush_every, saves=saves).of_model(model, plan)
        self.plan, forecast = fit_on_disk(plan, size, max_bytes=max_bytes)
        self._budget = Budget(max_overhead, overhead, trainer.global_step, steps)
        flush = partial(self.flush, all_processes=False)
        self.parameters = Parameters(parts, self.plan, before_change=flush)
        self.filters = ZeroFilters(trainer.strategy.root_device)
        self._rows: list[StepRecord] = []
        self.has_news = False  # whether settle has yet to act on a flush
        self._writer: Writer | None = None
        if trainer.is_global_zero:
            has_statistics = self.plan.statistics is not None
            self._writer = Writer(run_dir, trainer, parts, overhead, has_statistics=has_statistics)
            if is_compiled(model) and self.plan.distributions is not None:
                log.warning("the model is compiled: the outputs of its layers are not recorded")
            if idle := without_optimizer(trainer, parts):
                log.warning("no optimiser has %s: these weights will not move", ", ".join(idle))
            described = describe_plan(self.plan, plan)
            print(f"gradient record: {described}; about {format_bytes(forecast)}")

    def add(
        self,
        row: StepRecord,
        gradients: Sequence[Tensor],
        module: pl.LightningModule,
        micro_batches: MicroBatches,
    ) -> None:
        """Buffer the record of a step before the optimiser takes it, and alarm if it is broken."""
        if self._rows and self._rows[-1].step == row.step:  # an optimiser called its closure again
            self._rows.pop()
        self._rows.append(row)
        names = self.parameters.names
        if row.broken and row.loss_scale is None:
            self._alarms.look_at_broken_step(
                self._trainer, module, row, names, gradients, micro_batches
            )
            self._alarms.act(self._trainer)
        if self._alarms.mode != "off":
            self.filters.look([names[column] for column in row.columns], gradients)

    @property
    def is_full(self) -> bool:
        return len(self._rows) >= self.flush_every

    @torch.no_grad()
    def flush(self, *, all_processes: bool) -> None:
        """Move records to the host, check and write them; ``all_processes`` allows collectives."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        names, chosen = self.parameters.names, self.parameters.chosen
        losses, sums = step_losses(rows), torch.full((len(names),), torch.nan)
        if all_processes:
            sums = checksums(self.parameters.tensors)
            if self._trainer.world_size > 1:
                losses = self._trainer.strategy.reduce(losses, reduce_op="mean")
        arrays = losses.cpu().numpy(), sums.cpu().numpy()
        flushed = flush_steps(rows, names, *arrays, self.filters.flush())
        self._alarms.look(flushed)
        if self._writer is not None:
            self._writer.write(flushed, chosen)
        self.has_news = all_processes

    def settle(self) -> None:
        """Act on the alarms and the overhead of a flush, before the next step."""
        self.has_news = False
        self._alarms.act(self._trainer)
        before, plan = self.plan, self._budget.fit(self.plan, self._trainer.global_step)
        if self._trainer.world_size > 1:  # all processes must flush at the same steps
            plan = self._trainer.strategy.broadcast(plan)
        if plan != before:
            self.plan = plan
            rank_zero_only(log.warning)(
                "gradient record: would take more of the time than recorder.max_overhead=%g; from "
                "step %d on %s", self._budget.share, self._trainer.global_step + 1,
                describe_plan(plan, before),
            )  # fmt: skip

    def flush_to_disk(self, *, all_processes: bool = True) -> int:
        """Flush, wait for the disk, and return the bytes of the record."""
        self.flush(all_processes=all_processes)
        if self._writer is None:
            return 0
        self._writer.store.wait()
        return self._writer.store.bytes_written

    def flush_after(self, error: BaseException) -> None:
        """Flush in this process alone, because its training ends with an error."""
        try:
            self.flush_to_disk(all_processes=False)
        except TrainingError as second:
            if not comes_from_full_disk(error):  # already reported
                log.error("%s", second)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.store.close()
