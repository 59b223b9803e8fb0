"""The gradient recorder: a row for every optimiser step, at the cost of a kernel or two.

It reads ``p.grad`` in ``on_before_optimizer_step``: after the last backward of a step, after the
scaler has unscaled, after devices have been averaged, and before clipping. What it computes stays
on the device until it is flushed, by default every 50 rows.
"""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer

from convtrain.errors import TrainingError
from convtrain.gradients.diagnosis.alarm_handler import AlarmHandler, AlarmMode
from convtrain.gradients.record import statistics as measure
from convtrain.gradients.record.capture import INPUT
from convtrain.gradients.record.details import Details
from convtrain.gradients.record.filters import ZeroFilters
from convtrain.gradients.record.microbatches import MicroBatches
from convtrain.gradients.record.overhead import Budget, Overhead
from convtrain.gradients.record.parameters import Parameters, held_by
from convtrain.gradients.record.rows import Row, decide_finiteness, flush_rows, step_losses
from convtrain.gradients.record.schedule import Length, Plan, fit, in_words, size_in_words
from convtrain.gradients.record.surroundings import (
    clipping_of,
    is_on_cpu,
    learning_rates,
    loss_scale,
    scaler_of,
    unscales_itself,
    without_optimizer,
)
from convtrain.gradients.record.tensorboard import mirror_of
from convtrain.gradients.record.writer import Writer
from convtrain.models.compiled import is_compiled
from convtrain.process.atomic import comes_from_full_disk
from convtrain.training.epochs import epoch_steps, training_steps
from convtrain.training.norms import gradient_norms, norm_of_each, total_norm
from convtrain.training.task import Task

log = logging.getLogger("convtrain")

NORMS = frozenset({"norms"})


class Recorder(pl.Callback):
    """Records the gradients of a run; see :mod:`convtrain.gradients.record.store` for what is kept.

    It works on any LightningModule, under automatic and manual optimisation, with one optimiser or
    several. It changes nothing: weights, optimiser and random state are the same bits without it.

    Args:
        run_dir: the run's directory.
        plan: what is recorded, and when.
        flush_every_n_steps: rows between two flushes. A process that is killed loses no more.
        max_bytes: of the record on disk; the plan is thinned until its forecast keeps within.
        max_overhead: part of the whole time, in 0-1; the plan is thinned to keep within it.
        alarm: what is done when gradients are in trouble.

    Attributes:
        overhead: how long recording took, and how much of the training time that was.
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
        self.plan, self._run_dir = plan, Path(run_dir)
        self._flush_every, self._max_bytes = flush_every_n_steps, max_bytes
        self._max_overhead = max_overhead
        self.overhead, self.overhead_share = Overhead(), 0.0
        self.bytes_written = 0
        self._alarm_handler = AlarmHandler(alarm, self._run_dir)
        self._trainer: Any = None
        self._writer: Writer | None = None  # of the one process that writes
        self._restored: dict[str, Any] = {}
        self._rows: list[Row] = []
        self._fresh: list[Row] = []  # those of the step at hand
        self._filters = ZeroFilters()
        self._flushed = False  # and what the flush has shown is not acted upon yet

    # --- the run's beginning ----------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer, self._stepped = trainer, False
        self._epoch = trainer.current_epoch  # no epoch starts where a run goes on within one
        self._model = pl_module.model if isinstance(pl_module, Task) else pl_module
        self._parameters = Parameters(self._model, self.plan)
        self._details = Details(self.plan, self._parameters.names, self.overhead)
        steps, an_epoch = training_steps(trainer), max(epoch_steps(trainer), 1)
        saves = math.ceil(steps / an_epoch) if trainer.checkpoint_callbacks else 0
        length = Length(steps, self._flush_every, saves)
        wanted = self.plan
        self.plan, size = fit(wanted, self._parameters.sizes(), length, max_bytes=self._max_bytes)
        self._clips = clipping_of(trainer, pl_module)
        self._measures_clipping = self._clips in ("value", "unknown")
        if self._measures_clipping or self.plan.statistics is not None:
            for optimizer in trainer.optimizers:
                optimizer.register_step_post_hook(self._after_step)
        self._optimizers = {id(opt): index for index, opt in enumerate(trainer.optimizers)}
        self._scaler = scaler_of(trainer)
        self._clip_value = trainer.gradient_clip_val if self._clips == "norm" else None
        self._compiled = is_compiled(self._model)
        deep = self.plan.distributions or self.plan.tensors
        self._captures = deep is not None and not self._compiled
        host = is_on_cpu(next(self._model.parameters(), torch.empty(0)))
        self._decides_at_once = host or self._flush_every == 1
        replays = self._decides_at_once and self._alarm_handler.mode != "off"
        self._micro = MicroBatches(self._model, self.overhead, keeps_buffers=replays)
        self._go_on(pl_module.device)
        if trainer.is_global_zero:
            self._begin(trainer, wanted, size)
        self.overhead.start()
        self._budget = Budget(self._max_overhead, self.overhead, trainer.global_step, steps)

    def _go_on(self, device: torch.device) -> None:
        """Take up what :meth:`state_dict` has kept."""
        restored = self._restored
        self._details.load_state_dict(restored.get("previous", {}), device)
        if "watcher" in restored:
            self._alarm_handler.load_state_dict(restored["watcher"])
        if "filters" in restored:
            self._filters.load_state_dict(restored["filters"], device)
        self._micro.load_state_dict(restored.get("micro_batches", {}), device)

    def _begin(self, trainer: pl.Trainer, wanted: Plan, size: int) -> None:
        self._writer = Writer(
            self._run_dir,
            mirror_of(trainer),
            statistics=bool(self.plan.statistics),
            overhead=self.overhead,
        )
        self._writer.begin(trainer.global_step, self._model)
        if self._compiled and self.plan.distributions is not None:
            log.warning("the model is compiled: what its layers put out is not recorded")
        if idle := without_optimizer(trainer, self._model):
            log.warning("no optimiser has %s: these weights will not move", ", ".join(idle))
        print(f"gradient record: {in_words(self.plan, wanted)}; about {size_in_words(size)}")

    # --- a step -----------------------------------------------------------------------------------

    # All this runs while the caches are full of the backward pass, and takes several times what it
    # takes in a loop. So a step of which only norms are recorded makes few calls, of few kinds.

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._epoch = trainer.current_epoch

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._flushed:
            self._settle()
        with self.overhead:
            captures = False
            if self._captures:
                due = self.plan.due(trainer.global_step + 1)
                captures = "distributions" in due or "tensors" in due
            self._micro.begin(trainer, batch, batch_idx, captures=captures)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        began = time.perf_counter()
        self._stepped = True
        step, statistics = trainer.global_step + 1, self.plan.statistics
        due = self.plan.due(step)
        keep = statistics is not None and statistics(step + len(self._optimizers))
        if due or keep:
            self._record(pl_module, optimizer, step, due, keep=keep)
        self.overhead.seconds += time.perf_counter() - began

    def _record(
        self,
        module: pl.LightningModule,
        optimizer: Optimizer,
        step: int,
        due: frozenset[str],
        *,
        keep: bool,
    ) -> None:
        columns, gradients = self._gradients_of(optimizer)
        if not columns:
            return
        more = keep or bool(self._details.previous) or due != NORMS
        norms = norm_of_each(gradients, small=self._parameters.small)
        scale = loss_scale(self._scaler)
        still_scaled = scale is not None and unscales_itself(optimizer)
        if self._clips == "norm" and isinstance(module, Task) and not still_scaled:
            # Clipping need not do it again.
            module.gradient_norm = total_norm(torch.stack(list(norms)))
        if scale is not None and still_scaled:
            with torch.no_grad():
                norms = [norm / scale for norm in norms]
                gradients = [gradient / scale for gradient in gradients] if more else gradients
        row = Row(
            step=step,
            epoch=self._epoch,
            time=time.time(),
            optimizer=self._optimizers.get(id(optimizer), 0),
            micro_batches=len(self._micro.batches) or 1,
            lr=learning_rates(optimizer),
            columns=columns,
            loss_scale=scale,
            clip_value=self._clip_value,
            batches=self._micro.indices(),
        )
        if more:
            parameters = [self._parameters.tensors[column] for column in columns]
            with torch.no_grad():
                self._details.before_step(
                    row, due, keep=keep, parameters=parameters, gradients=gradients
                )
        if due:
            self._add(row)
            self._judge(module, row, norms, gradients)
            if self._alarm_handler.mode != "off":
                with torch.no_grad():
                    names = [self._parameters.names[column] for column in columns]
                    self._filters.look(names, gradients)

    def _add(self, row: Row) -> None:
        if self._rows and self._rows[-1].step == row.step:  # of a closure evaluated again
            self._rows.pop()
        self._rows.append(row)
        self._fresh.append(row)

    def _gradients_of(self, optimizer: Optimizer) -> tuple[list[int], list[Tensor]]:
        try:
            return self._parameters.with_gradient(optimizer)
        except KeyError:  # a parameter that the model did not have before
            self._flush(together=False)
            self._parameters = Parameters(self._model, self.plan)
            return self._parameters.with_gradient(optimizer)

    def _judge(
        self, module: pl.LightningModule, row: Row, norms: Sequence[Tensor], gradients: list[Tensor]
    ) -> None:
        """Decide whether all is finite: at once where the host sees it, else at the flush."""
        if not self._decides_at_once:
            with torch.no_grad():
                row.norms, row.largest = torch.stack(list(norms)), measure.largest(gradients)
            return
        decide_finiteness(row, norms, gradients)
        if row.broken and row.loss_scale is None:
            self._alarm_handler.look_at_broken_step(
                self._trainer, module, row, self._parameters.names, gradients, self._micro
            )
            self._alarm_handler.act(self._trainer)

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        with self.overhead, torch.no_grad():
            self._details.after_step()
            if self._fresh and self._measures_clipping:
                gradients = [p.grad for p in held_by(optimizer) if p.grad is not None]
                self._fresh[-1].clipped = total_norm(gradient_norms(gradients))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            loss = loss.detach() if loss.requires_grad else loss
            divided = pl_module.automatic_optimization and not isinstance(pl_module, Task)
            parts = trainer.accumulate_grad_batches if divided else 1
            loss = loss if parts == 1 else loss * parts
        with self.overhead:
            self._micro.end(loss if isinstance(loss, Tensor) else None)
            if self._stepped:
                self._end_step()

    def _end_step(self) -> None:
        self._stepped = False
        if self._details.stepping is not None:
            with torch.no_grad():
                self._details.after_step()  # of a step that the scaler skipped
        losses = self._micro.losses
        if len(losses) > 1 and not isinstance(self._trainer.lightning_module, Task):
            losses = [torch.stack(losses).float().mean()]  # they have no weights
        for row in self._fresh:
            row.losses = row.losses or losses
        for row in self._fresh[:1]:
            if row.tensors and self._micro.input_gradient is not None:
                row.tensors[INPUT] = self._micro.input_gradient
            if row.histograms is not None:
                row.layers = self._micro.layers
        full = len(self._rows) >= self._flush_every or any(row.tensors for row in self._fresh)
        self._fresh = []
        self._micro.clear()
        if full:
            with torch.no_grad():
                self._flush(together=True)
            self._settle()

    # --- flushing ---------------------------------------------------------------------------------

    def _flush(self, *, together: bool) -> None:
        """Move the rows to the host, look for trouble, and hand them to the writer.

        Args:
            together: all processes flush now, so that they may exchange what they know.
        """
        rows, self._rows = self._rows, []
        if not rows:
            return
        losses, marks = step_losses(rows), torch.full((len(self._parameters.names),), torch.nan)
        if together:
            marks = measure.fingerprints(self._parameters.tensors)
            if self._trainer.world_size > 1:
                losses = self._trainer.strategy.reduce(losses, reduce_op="mean")
        flushed = flush_rows(rows, self._parameters.names, losses.cpu().numpy())
        self._alarm_handler.look(flushed, marks.cpu().numpy(), self._filters.flush())
        if self._writer is not None:
            self._writer.write(flushed, self._parameters.chosen)
        self._flushed = together

    def _settle(self) -> None:
        """Act on what a flush has shown, before another step is done."""
        self._flushed = False
        self._alarm_handler.act(self._trainer)
        before, plan = self.plan, self._budget.fit(self.plan, self._trainer.global_step)
        if self._trainer.world_size > 1:  # all must flush at the same steps
            plan = self._trainer.strategy.broadcast(plan)
        if plan != before:
            self.plan = plan
            rank_zero_only(log.warning)(
                "gradient record: would take more of the time than recorder.max_overhead=%g; from "
                "step %d on %s", self._max_overhead, self._trainer.global_step + 1,
                in_words(plan, before),
            )  # fmt: skip

    # --- the run's end, and checkpoints -----------------------------------------------------------

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with self.overhead:
            self._flush(together=True)
            self.wait()
        self.overhead_share = self.overhead.share()
        self._alarm_handler.act(trainer)
        if self._writer is not None and self._writer.recorded:
            self.bytes_written = self._writer.store.bytes_written

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._trainer is None:
            return
        self._micro.end(None)
        try:
            self._flush(together=False)
            self.wait()
        except TrainingError as error:
            if not comes_from_full_disk(exception):  # which is told already
                log.error("%s", error)  # the run ends with the first exception, and its own message

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """Flush, so that all up to the checkpoint is on disk, and return what goes on after it."""
        if self._trainer is None:
            return self._restored
        with self.overhead:
            self._flush(together=True)
            self.wait()
        return {
            "watcher": self._alarm_handler.state_dict(),
            "previous": self._details.state_dict(),
            "filters": self._filters.state_dict(),
            "micro_batches": self._micro.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def wait(self) -> None:
        """Return when all that was flushed is on disk."""
        if self._writer is not None:
            self._writer.wait()
