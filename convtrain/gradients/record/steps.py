"""Records of optimiser steps: on the device, and on the host once they are flushed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from convtrain.gradients.diagnosis.online import Block
from convtrain.gradients.record.capture import LayerRecord
from convtrain.gradients.record.statistics import COMPARISONS, NAMES, flat, is_finite

MEASURED = (*NAMES, *COMPARISONS)
"""The columns of :attr:`StepRecord.statistics`."""

CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


@dataclass
class StepRecord:
    """One step of one optimiser. Tensors stay on the device until they are flushed.

    Attributes:
        columns: the P parameters that had a gradient, by position; tensors (P, ...) follow it.
        clip_value: the largest total norm allowed; None without clipping by norm.
        batches: the dataset indices of each micro-batch.
        losses: one for each micro-batch, weighted; they add up to the step's loss.
        norms: (P), of the unscaled and unclipped gradients; numbers if the host has them.
        largest: (P), absolute values, if the flush decides what is finite.
        broken: the columns whose gradient is not finite, once that is decided.
        statistics: (P, len(MEASURED)), NaN where there is no number.
        clipped: the total norm measured after the step, if ``clip_value`` does not determine it.
        histograms: (P, BINS + 6).
        layers: from the first micro-batch.
        filters: by parameter name, some of a convolution's filters and their gradients.
    """

    step: int
    epoch: int
    time: float
    optimizer: int
    micro_batches: int
    lr: list[float | Tensor]
    columns: list[int]
    loss_scale: Tensor | None
    clip_value: float | None
    batches: list[Tensor]
    losses: list[Tensor] = field(default_factory=list)
    norms: Tensor | np.ndarray | Sequence[float] = ()
    largest: Tensor | None = None
    broken: list[int] | None = None
    statistics: Tensor | None = None
    clipped: Tensor | None = None
    histograms: Tensor | None = None
    layers: LayerRecord | None = None
    filters: dict[str, tuple[Tensor, Tensor]] | None = None
    tensors: dict[str, Tensor] | None = None

    @property
    def images(self) -> list[int]:
        """The dataset indices of all images, where they are known."""
        return [index for batch in self.batches for index in batch.tolist()]

    def decide_finiteness(self, norms: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Find the gradients that are not finite; this waits for the device."""
        self.norms, self.broken = [norm.item() for norm in norms], []
        if not math.isfinite(sum(self.norms)):
            pairs = zip(self.columns, gradients, strict=True)
            self.broken = [column for column, gradient in pairs if not is_finite(gradient)]
            # Float32 may not hold the squares of finite values.
            exact = (torch.linalg.vector_norm(flat(g).double()) for g in gradients)
            self.norms = [norm.item() for norm in exact]


@dataclass(frozen=True)
class FlushedSteps(Block):
    """Records of steps, with their numbers on the host."""

    rows: Sequence[StepRecord] = ()

    @cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        """float32 (S, P) by name, NaN where nothing was measured."""
        values = np.full((len(MEASURED), *self.norms.shape), np.nan, np.float32)
        for index, row in enumerate(self.rows):
            if row.statistics is not None:
                values[:, index, row.columns] = row.statistics.cpu().numpy().T
        return dict(zip(MEASURED, values, strict=True))


def flush_steps(
    rows: Sequence[StepRecord],
    names: tuple[str, ...],
    losses: np.ndarray,
    fingerprints: np.ndarray,
    zero_filters: Mapping[str, np.ndarray],
) -> FlushedSteps:
    """Move records to the host; ``losses`` (S,) are those of all devices together."""
    norms = np.full((len(rows), len(names)), np.nan)
    present = np.zeros(norms.shape, dtype=bool)
    broken, start = _decide_broken(rows), 0
    for columns, group in groupby(rows, lambda row: row.columns):  # usually one of all rows
        stop = start + len(list(group))
        norms[start:stop, columns] = [row.norms for row in rows[start:stop]]
        present[start:stop, columns] = True
        start = stop
    nonfinite = np.array([len(columns) for columns in broken])
    total = np.sqrt(np.where(present, norms, 0.0) ** 2 @ np.ones(len(names)))
    clipped, coefficient = _clipping(rows, total)
    scales = np.array([np.nan if r.loss_scale is None else float(r.loss_scale) for r in rows])
    copied = ("step", "epoch", "time", "optimizer", "micro_batches")
    steps = {
        **{name: np.array([getattr(row, name) for row in rows]) for name in copied},
        "loss": losses,
        "loss_known": np.array([bool(r.losses) for r in rows]),
        "loss_scale": scales,
        "skipped": ~np.isnan(scales) & (nonfinite > 0),
        "norm": total,
        "clipped_norm": clipped,
        "clip_coefficient": coefficient,
        "nonfinite": nonfinite,
        "first_nonfinite": np.array([names[c[0]] if c else None for c in broken], object),
    }
    images = [row.images if row.broken else [] for row in rows]
    return FlushedSteps(names, steps, norms, present, images, fingerprints, zero_filters, rows)


def step_losses(rows: Sequence[StepRecord]) -> Tensor:
    """Return the loss of each step (S,), NaN where it is not known."""
    device = next((r.losses[0].device for r in rows if r.losses), torch.device("cpu"))
    unknown = torch.full((), torch.nan, device=device)
    return torch.stack([_sum(r.losses) if r.losses else unknown for r in rows]).float()


def _sum(losses: Sequence[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(list(losses)).float().sum()


def _decide_broken(rows: Sequence[StepRecord]) -> list[list[int]]:
    """Move norms to the host; return the columns whose values, not their norms, are not finite."""
    waiting = [row for row in rows if row.largest is not None]
    all_norms = _to_host(row.norms for row in waiting)
    all_largest = _to_host(row.largest for row in waiting)
    for row, norms, largest in zip(waiting, all_norms, all_largest, strict=True):
        row.norms = norms
        row.broken = [row.columns[i] for i in np.flatnonzero(~np.isfinite(largest))]
    return [row.broken or [] for row in rows]


def _clipping(rows: Sequence[StepRecord], total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    clipped, coefficient = total.copy(), np.ones(len(rows))
    for index, row in enumerate(rows):
        if row.clip_value is not None:
            coefficient[index] = np.minimum(1.0, row.clip_value / (total[index] + CLIP_EPSILON))
            clipped[index] = total[index] * coefficient[index]
        elif row.clipped is not None:
            clipped[index] = float(row.clipped)
            coefficient[index] = clipped[index] / total[index] if total[index] else 1.0
    return clipped, coefficient


def _to_host(vectors: Iterable[object]) -> list[np.ndarray]:
    """Move many small vectors in one copy."""
    found = [vector.double() for vector in vectors if isinstance(vector, Tensor)]
    if not found:
        return []
    together = torch.cat(found).cpu().numpy()
    return np.split(together, np.cumsum([len(tensor) for tensor in found])[:-1])
