"""From what a step left on the device to rows of the record."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from convtrain.gradients.record.capture import LayerRecord
from convtrain.gradients.record.statistics import BINS, KINDS, exact_norm, is_finite
from convtrain.gradients.record.store import STATISTICS

PARAMETER_STATISTICS = (*STATISTICS[1:], "update_ratio", "cosine")
CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


@dataclass
class Row:
    """One optimiser step. Tensors stay on the device until the row is flushed.

    Attributes:
        columns: the parameters that had a gradient, by their place among all; the tensors below
            have an entry for each, in this order.
        norms: (P,) of the true gradients, unscaled and unclipped; numbers where the host has them.
        largest: (P,) absolute values, where finiteness is not decided at once.
        broken: the columns whose gradient is not finite, where that is decided.
        described: (P, 6), by :func:`convtrain.gradients.record.statistics.describe`.
        update_ratio, cosine: (P,).
        clip_value: the largest total norm allowed; None without clipping by norm.
        clipped: the total norm measured after the step, where it does not follow from the value.
        losses: of the micro-batches, each with its weight in the step's; they add up to that.
        batches: the dataset indices of each micro-batch.
        histograms: (P, BINS + 6).
        pictures: by parameter name, some of a convolution's filters and their gradients.
        tensors: whole gradients by name.
    """

    step: int
    epoch: int
    time: float
    optimizer: int
    micro_batches: int
    lr: list[Any]
    columns: list[int]
    loss_scale: Tensor | None
    clip_value: float | None
    batches: list[Tensor]
    losses: list[Tensor] = field(default_factory=list)
    # What a row is made without costs it no time.
    norms: Tensor | Sequence[float] = field(init=False, default=())
    largest: Tensor | None = field(init=False, default=None)
    broken: list[int] | None = field(init=False, default=None)
    described: Tensor | None = field(init=False, default=None)
    update_ratio: Tensor | None = field(init=False, default=None)
    cosine: Tensor | None = field(init=False, default=None)
    clipped: Tensor | None = field(init=False, default=None)
    histograms: Tensor | None = field(init=False, default=None)
    layers: LayerRecord | None = field(init=False, default=None)
    pictures: dict[str, tuple[Tensor, Tensor]] | None = field(init=False, default=None)
    tensors: dict[str, Tensor] | None = field(init=False, default=None)


@dataclass(frozen=True)
class Flushed:
    """Rows on the host, as arrays.

    Attributes:
        names: of all parameters (P).
        steps: the table of steps, by column.
        norms: float64 (S, P), NaN where there was no gradient; ``present`` tells the two apart.
    """

    names: tuple[str, ...]
    rows: Sequence[Row]
    steps: dict[str, Any]
    norms: np.ndarray
    present: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.steps["norm"]


def decide_finiteness(row: Row, norms: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Find out at once which of a row's gradients are not finite, where the host can see them."""
    row.norms, row.broken = [norm.item() for norm in norms], []
    if not math.isfinite(sum(row.norms)):
        pairs = zip(row.columns, gradients, strict=True)
        row.broken = [column for column, gradient in pairs if not is_finite(gradient)]
        row.norms = [exact_norm(gradient).item() for gradient in gradients]


def flush_rows(rows: Sequence[Row], names: Sequence[str], losses: np.ndarray) -> Flushed:
    """Move rows to the host.

    Args:
        names: of all parameters, by column.
        losses: (S,), the loss of each row, that of all images of its step on all devices.
    """
    norms = np.full((len(rows), len(names)), np.nan)
    present = np.zeros(norms.shape, dtype=bool)
    measured, start = _norms(rows), 0
    for columns, group in groupby(rows, lambda row: row.columns):  # mostly one, of all rows
        stop = start + len(list(group))
        norms[start:stop, columns] = measured[start:stop]
        present[start:stop, columns] = True
        start = stop
    broken = _broken_columns(rows)
    total = np.sqrt(np.where(present, norms, 0.0) ** 2 @ np.ones(len(names)))
    coefficient, clipped = _clipping(rows, total)
    scales = [np.nan if r.loss_scale is None else float(r.loss_scale) for r in rows]
    steps = {
        "step": np.array([r.step for r in rows], dtype=np.int64),
        "epoch": np.array([r.epoch for r in rows], dtype=np.int32),
        "time": np.array([r.time for r in rows]),
        "optimizer": np.array([r.optimizer for r in rows], dtype=np.int32),
        "micro_batches": np.array([r.micro_batches for r in rows], dtype=np.int32),
        "lr": [[float(rate) for rate in r.lr] for r in rows],
        "loss": losses,
        "loss_known": np.array([bool(r.losses) for r in rows]),
        "loss_scale": np.array(scales),
        "skipped": np.array(
            [r.loss_scale is not None and bool(b) for r, b in zip(rows, broken, strict=True)]
        ),
        "norm": total,
        "clipped_norm": clipped,
        "clip_coefficient": coefficient,
        "nonfinite": np.array([len(b) for b in broken], dtype=np.int32),
        "first_nonfinite": [names[b[0]] if b else None for b in broken],
    }
    return Flushed(tuple(names), rows, steps, norms, present)


def step_losses(rows: Sequence[Row]) -> Tensor:
    """Return each row's loss, that of the step's images; NaN where none is known. (S,)"""
    device = next((r.losses[0].device for r in rows if r.losses), torch.device("cpu"))
    nothing = torch.full((), torch.nan, device=device)
    return torch.stack([_sum(r.losses) if r.losses else nothing for r in rows]).float()


def _sum(losses: Sequence[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(list(losses)).float().sum()


def step_columns(flushed: Flushed) -> dict[str, Any]:
    """Return the rows of the table of steps."""
    steps = dict(flushed.steps)
    scales, known = steps["loss_scale"], steps.pop("loss_known")
    return {
        **steps,
        "loss": pa.array(steps["loss"].astype(np.float32), pa.float32(), mask=~known),
        "loss_scale": _nullable(scales),
        "clipped_norm": _nullable(flushed.steps["clipped_norm"], flushed.total),
        "clip_coefficient": _nullable(flushed.steps["clip_coefficient"], flushed.total),
    }


def parameter_columns(
    flushed: Flushed, chosen: Sequence[bool], *, statistics: bool
) -> dict[str, Any]:
    """Return the rows of the table of parameters: one for each step and chosen parameter.

    Args:
        statistics: whether the record has them at some steps; all its parts have the same columns.
    """
    kept = flushed.present & np.array(chosen, dtype=bool)
    steps = flushed.steps["step"]
    row_index, column_index = np.nonzero(kept)
    columns: dict[str, Any] = {
        "step": steps[row_index],
        "parameter": named(column_index, flushed.names),
        "norm": flushed.norms[kept].astype(np.float32),
    }
    if not statistics:
        return columns
    shape = (*flushed.norms.shape, len(PARAMETER_STATISTICS))
    values, known = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    for index, row in enumerate(flushed.rows):
        if row.described is not None:
            values[index, row.columns, :-2] = _host(row.described)[:, 1:]
            known[index, row.columns, :-2] = True
        for place, measured in ((-2, row.update_ratio), (-1, row.cosine)):
            if measured is not None:
                values[index, row.columns, place] = numbers = _host(measured)
                known[index, row.columns, place] = ~np.isnan(numbers)
    for place, name in enumerate(PARAMETER_STATISTICS):
        mask = ~known[..., place][kept]
        columns[name] = pa.array(values[..., place][kept], pa.float32(), mask=mask)
    return columns


def histogram_columns(flushed: Flushed, chosen: Sequence[bool]) -> dict[str, Any]:
    steps: list[int] = []
    places: list[int] = []
    counts: list[np.ndarray] = []
    for row in flushed.rows:
        if row.histograms is not None:
            for column, values in zip(row.columns, _host(row.histograms), strict=True):
                if chosen[column]:
                    steps.append(row.step)
                    places.append(column)
                    counts.append(values)
    table = np.array(counts, dtype=np.int64).reshape(len(counts), BINS + len(KINDS))
    return {
        "step": steps,
        "parameter": named(places, flushed.names),
        "counts": [row[:BINS].astype(np.int32) for row in table],
        **{kind: table[:, BINS + place] for place, kind in enumerate(KINDS)},
    }


def layer_columns(flushed: Flushed) -> dict[str, Any]:
    sampled = [row for row in flushed.rows if row.layers is not None]
    columns: dict[str, Any] = {
        "step": [row.step for row in sampled for _ in row.layers.names],  # type: ignore[union-attr]
        "layer": [name for row in sampled for name in row.layers.names],  # type: ignore[union-attr]
    }
    for what in ("values", "gradients"):
        parts = [_host(getattr(row.layers, what)) for row in sampled]
        table = np.concatenate(parts) if parts else np.empty((0, len(STATISTICS)))
        for place, name in enumerate(STATISTICS):
            columns[f"{what[:-1]}_{name}"] = table[:, place]
    return columns


def named(places: Sequence[int] | np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(places, pa.int32()), pa.array(names, pa.string())
    )


def _broken_columns(rows: Sequence[Row]) -> list[list[int]]:
    """Return the parameters that are not finite, by the values and not by their norms."""
    waiting = [row for row in rows if row.broken is None and row.largest is not None]
    for row, largest in zip(waiting, _to_host(r.largest for r in waiting), strict=True):
        row.broken = [row.columns[i] for i in np.flatnonzero(~np.isfinite(largest))]
    return [row.broken or [] for row in rows]


def _clipping(rows: Sequence[Row], total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    coefficient, clipped = np.ones(len(rows)), total.copy()
    for index, row in enumerate(rows):
        if row.clip_value is not None:
            raw = row.clip_value / (total[index] + CLIP_EPSILON)
            coefficient[index] = raw if np.isnan(raw) else min(1.0, raw)
            clipped[index] = total[index] * coefficient[index]
        elif row.clipped is not None:
            clipped[index] = float(row.clipped)
            coefficient[index] = clipped[index] / total[index] if total[index] else 1.0
    return coefficient, clipped


def _norms(rows: Sequence[Row]) -> list[Any]:
    waiting = iter(_to_host(row.norms for row in rows if isinstance(row.norms, Tensor)))
    return [next(waiting) if isinstance(row.norms, Tensor) else row.norms for row in rows]


def _to_host(tensors: Iterable[Tensor | None]) -> list[np.ndarray]:
    """Move many small vectors in one copy."""
    found = [tensor.double() for tensor in tensors if tensor is not None]
    if not found:
        return []
    together = torch.cat(found).cpu().numpy()
    return np.split(together, np.cumsum([len(tensor) for tensor in found])[:-1])


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _nullable(values: np.ndarray, like: np.ndarray | None = None) -> pa.Array:
    """Leave out what was not measured: NaN, unless ``like`` is NaN in the same place."""
    unknown = np.isnan(values) if like is None else np.isnan(values) & ~np.isnan(like)
    return pa.array(values.astype(np.float32), pa.float32(), mask=unknown)
