"""The columns of each table of the record, from steps on the host."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from convtrain.gradients.record.histograms import BINS, KINDS
from convtrain.gradients.record.statistics import COMPARISONS, NAMES
from convtrain.gradients.record.steps import FlushedSteps
from convtrain.gradients.record.store import Column


def step_columns(flushed: FlushedSteps) -> dict[str, Column]:
    """Return the table of steps."""
    steps, norm = flushed.steps, flushed.steps["norm"]
    known = {
        "loss": steps["loss_known"],
        "loss_scale": ~np.isnan(steps["loss_scale"]),
        **{n: ~np.isnan(steps[n]) | np.isnan(norm) for n in ("clipped_norm", "clip_coefficient")},
    }
    columns: dict[str, Column] = {n: array for n, array in steps.items() if n != "loss_known"}
    columns |= {name: _nullable(steps[name], where) for name, where in known.items()}
    columns["lr"] = [[float(rate) for rate in row.lr] for row in flushed.rows]
    return columns


def parameter_columns(
    flushed: FlushedSteps, chosen: Sequence[bool], *, statistics: bool
) -> dict[str, Column]:
    """Return the table of parameters: one row for each step and chosen parameter.

    ``statistics`` adds all their columns even to an unsampled flush, so that all parts are alike.
    """
    kept = flushed.present & np.array(chosen, dtype=bool)
    row_index, column_index = np.nonzero(kept)
    columns: dict[str, Column] = {
        "step": flushed.steps["step"][row_index],
        "parameter": _names(column_index, flushed.names),
        "norm": flushed.norms[kept].astype(np.float32),
    }
    if statistics:
        measured = np.array([row.statistics is not None for row in flushed.rows])[row_index]
        for name in NAMES[1:]:
            columns[name] = _nullable(flushed.statistics[name][kept], measured)
        for name in COMPARISONS:
            values = flushed.statistics[name][kept]
            columns[name] = _nullable(values, ~np.isnan(values))
    return columns


def histogram_columns(flushed: FlushedSteps, chosen: Sequence[bool]) -> dict[str, Column]:
    """Return the table of histograms: one row for each sampled step and chosen parameter."""
    rows = [
        (row.step, column, counts)
        for row in flushed.rows
        if row.histograms is not None
        for column, counts in zip(row.columns, row.histograms.cpu().numpy(), strict=True)
        if chosen[column]
    ]
    table = np.array([counts for _, _, counts in rows], np.int64).reshape(-1, BINS + len(KINDS))
    return {
        "step": [step for step, _, _ in rows],
        "parameter": _names([column for _, column, _ in rows], flushed.names),
        "counts": list(table[:, :BINS].astype(np.int32)),
        **{kind: table[:, BINS + place] for place, kind in enumerate(KINDS)},
    }


def layer_columns(flushed: FlushedSteps) -> dict[str, Column]:
    """Return the table of layers: one row for each sampled step and layer."""
    sampled = [(row.step, row.layers) for row in flushed.rows if row.layers is not None]
    columns: dict[str, Column] = {
        "step": [step for step, layers in sampled for _ in layers.names],
        "layer": [name for _, layers in sampled for name in layers.names],
    }
    for what in ("value", "gradient"):
        tables = [getattr(layers, f"{what}s").cpu().numpy() for _, layers in sampled]
        for place, name in enumerate(NAMES):
            columns[f"{what}_{name}"] = np.concatenate([table[:, place] for table in tables])
    return columns


def _names(positions: Sequence[int] | np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        pa.array(positions, pa.int32()), pa.array(names, pa.string())
    )


def _nullable(values: np.ndarray, known: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.float32), pa.float32(), mask=~known)
