"""Measure gradients before the optimiser's step, and the update of the weights after it."""

import time
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from convtrain.gradients.record.flushing import Flusher
from convtrain.gradients.record.histograms import histogram
from convtrain.gradients.record.microbatches import MicroBatches
from convtrain.gradients.record.overhead import Overhead
from convtrain.gradients.record.parameters import parameters_of
from convtrain.gradients.record.schedule import Plan
from convtrain.gradients.record.statistics import (
    COMPARISONS,
    NAMES,
    describe,
    is_on_cpu,
    largest,
)
from convtrain.gradients.record.steps import MEASURED, StepRecord
from convtrain.text import matches
from convtrain.training.norms import gradient_norms, norm_of_each, total_norm, whole
from convtrain.training.sharding import gathered
from convtrain.training.task import Task

ONLY_NORMS = frozenset({"norms"})
CONVOLUTIONS_SHOWN = 4
FILTERS, CHANNELS = 16, 4  # per convolution


class Measurement:
    """Measures the gradients that an optimiser is about to use, and its update of the weights.

    A step that records only norms makes few calls: the backward pass has just filled the caches,
    and each call takes several times what it takes in a loop.

    Attributes:
        decides_at_once: finiteness is decided before the optimiser's step, not at the flush.
        has_stepped: the optimiser has taken the current step, or is about to.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        flusher: Flusher,
        overhead: Overhead,
    ) -> None:
        self._trainer, self._module, self._overhead = trainer, module, overhead
        self._flusher, self._parameters = flusher, flusher.parameters
        on_cpu = all(map(is_on_cpu, self._parameters.tensors[:1]))
        self.decides_at_once = on_cpu or flusher.flush_every == 1
        own = type(module).configure_gradient_clipping  # may clip in any way
        known = (pl.LightningModule.configure_gradient_clipping, Task.configure_gradient_clipping)
        limit = trainer.gradient_clip_val or None
        by_norm = trainer.gradient_clip_algorithm != "value"
        clips_unseen = not module.automatic_optimization or own not in known
        self._clip_value = limit if by_norm and not clips_unseen else None
        self._measures_clipping = clips_unseen or (limit is not None and not by_norm)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._scaler: GradScaler | None = scaler if scaler and scaler.is_enabled() else None
        self._optimizers = {id(opt): index for index, opt in enumerate(trainer.optimizers)}
        self._previous: dict[str, Tensor] = {}  # gradients to compare the next step's with
        self._rows: list[StepRecord] = []  # the current step's, one for each optimiser
        self.has_stepped = False
        self._before: tuple[StepRecord, list[Tensor], list[Tensor]] | None = None
        if self._measures_clipping or flusher.plan.statistics is not None:
            for optimizer in trainer.optimizers:
                optimizer.register_step_post_hook(lambda optimizer, *_: self._after_step(optimizer))

    @torch.no_grad()
    def before_step(
        self, optimizer: Optimizer, step: int, micro_batches: MicroBatches
    ) -> tuple[StepRecord, list[Tensor]] | None:
        """Return a step's record and its unscaled gradients by column; None if nothing is due."""
        self.has_stepped = True
        plan = self._flusher.plan
        due, statistics = plan.due(step), plan.statistics
        is_compared = statistics is not None and statistics(step + len(self._optimizers))
        if not (due or is_compared):
            return None
        columns, gradients = self._parameters.with_gradient(optimizer)
        if not columns:
            return None
        norms = norm_of_each(gradients, small=self._parameters.small)
        has_details = is_compared or bool(self._previous) or due != ONLY_NORMS
        scale = None if self._scaler is None else self._scaler._scale
        if scale is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            # A fused optimiser divides by the loss scale itself, in its step.
            norms = [norm / scale for norm in norms]
            if has_details or self.decides_at_once:
                gradients = [gradient / scale for gradient in gradients]
        elif self._clip_value is not None and isinstance(self._module, Task):
            self._module.gradient_norm = total_norm(torch.stack(list(norms)))  # clipping uses it
        rates = [group["lr"] for group in optimizer.param_groups]
        row = StepRecord(
            step=step,
            epoch=self._trainer.current_epoch,
            time=time.time(),
            optimizer=self._number_of(optimizer),
            micro_batches=len(micro_batches.batches) or 1,
            # Tensor rates and the scale change in place.
            lr=[rate.clone() if isinstance(rate, Tensor) else rate for rate in rates],
            columns=columns,
            loss_scale=None if scale is None else scale.clone(),
            clip_value=self._clip_value,
            batches=micro_batches.indices(),
        )
        if has_details:
            self._measure_details(row, gradients, due, plan, is_compared)
        if not due:
            return None
        if self.decides_at_once:
            row.decide_finiteness(norms, gradients)
        else:
            row.norms, row.largest = torch.stack(list(norms)), largest(gradients)
        self._rows.append(row)
        return row, gradients

    def _measure_details(
        self,
        row: StepRecord,
        gradients: Sequence[Tensor],
        due: frozenset[str],
        plan: Plan,
        is_compared: bool,
    ) -> None:
        names = [self._parameters.names[column] for column in row.columns]
        parameters: list[Tensor] = [self._parameters.tensors[column] for column in row.columns]
        with self._overhead.of("statistics"):
            none = torch.zeros(1, device=gradients[0].device)  # its cosine is NaN
            previous = [self._previous.pop(name, none) for name in names]
            if "statistics" in due:
                shape = len(names), len(MEASURED)
                row.statistics = torch.full(shape, torch.nan, device=gradients[0].device)
                row.statistics[:, : len(NAMES)] = describe(gradients)
                cosines = COMPARISONS["cosine"](gradients, previous)
                row.statistics[:, MEASURED.index("cosine")] = cosines
                self._before = row, parameters, [p.detach().clone() for p in parameters]
            if is_compared:
                clones = [gradient.detach().clone() for gradient in gradients]
                self._previous.update(zip(names, clones, strict=True))
        if "distributions" in due:
            with self._overhead.of("distributions"):
                row.histograms = torch.stack([histogram(gradient) for gradient in gradients])
                row.filters = _first_filters(names, parameters, gradients)
        if "tensors" in due:
            with self._overhead.of("tensors"):
                row.tensors = {
                    name: whole(gradient.detach()).clone()
                    for name, gradient in zip(names, gradients, strict=True)
                    if matches(name, plan.tensor_names)
                }

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer) -> None:
        with self._overhead:
            self._measure_update()
            measured = [row for row in self._rows if row.optimizer == self._number_of(optimizer)]
            if measured and self._measures_clipping:
                gradients = [p.grad for p in parameters_of(optimizer) if p.grad is not None]
                measured[-1].clipped = total_norm(gradient_norms(gradients))

    @torch.no_grad()
    def end_step(self) -> list[StepRecord]:
        """Return the records of a step that the optimiser took or the scaler skipped."""
        self._measure_update()
        rows, self._rows, self.has_stepped = self._rows, [], False
        return rows

    def _measure_update(self) -> None:
        if self._before is not None:
            with self._overhead.of("statistics"):
                (row, parameters, before), self._before = self._before, None
                assert row.statistics is not None
                ratios = COMPARISONS["update_ratio"](parameters, before)
                row.statistics[:, MEASURED.index("update_ratio")] = ratios

    def _number_of(self, optimizer: Optimizer) -> int:
        return self._optimizers.get(id(optimizer), 0)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: gathered(tensor) for name, tensor in self._previous.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        known = set(self._parameters.names)
        self._previous = {name: tensor for name, tensor in state.items() if name in known}


def _first_filters(
    names: Sequence[str], parameters: Sequence[Tensor], gradients: Sequence[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
        if parameter.ndim == 4 and parameter.shape[-1] > 1 and len(found) < CONVOLUTIONS_SHOWN:
            part = slice(FILTERS), slice(CHANNELS)
            weight, its_gradient = whole(parameter.detach()), whole(gradient.detach())
            found[name] = weight[part].float().clone(), its_gradient[part].float().clone()
    return found
