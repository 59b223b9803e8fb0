"""The curves of a run: each metric over optimiser steps and over epochs, from ``metrics.csv``."""

import csv
import io
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

from convtrain.errors import CorruptDataError, first_line

FILE = "metrics.csv"
AT_THE_END = "train/loss_epoch"  # is logged at the end of an epoch only


@dataclass(frozen=True)
class Curve:
    """Values of a metric.

    Attributes:
        steps: optimiser steps.
        epochs: epochs trained until then, such as 1.5; NaN until the run has logged its first.
        values: of the metric; NaN where it was not a number.
    """

    steps: list[int] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def read_curves(run: Path) -> dict[str, Curve]:
    """Return the curves of a run by metric; none without a ``metrics.csv``.

    A run that was killed may have left an incomplete last row, which does not count.

    Raises:
        CorruptDataError: the file cannot be read.
    """
    path = run / FILE
    if not path.is_file():
        return {}
    curves: dict[str, Curve] = {}
    ends = {0: 0.0}
    try:
        content = path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1].decode()
        reader = csv.reader(io.StringIO(complete, newline=""))
        columns = next(reader, [])
        for row in filter(None, reader):  # an empty line is no row
            cells = {name: cell for name, cell in zip(columns, row, strict=True) if cell}
            step = int(float(cells.pop("step", 0)))
            epoch = cells.pop("epoch", None)
            if epoch is not None and AT_THE_END in cells:
                ends[step] = float(epoch) + 1
            for name, value in cells.items():
                curve = curves.setdefault(name, Curve())
                curve.steps.append(step)
                curve.values.append(float(value))
    except (OSError, ValueError, csv.Error) as error:
        raise CorruptDataError(f"{path}: damaged, {first_line(error)}") from error
    known = sorted(ends.items())
    for curve in curves.values():
        curve.epochs.extend(_epoch(step, known) for step in curve.steps)
    return curves


def _epoch(step: int, ends: list[tuple[int, float]]) -> float:
    """Return how many epochs a step is after the start; the last known pace goes on."""
    if len(ends) < 2:
        return float("nan")
    place = min(max(bisect_left(ends, (step, 0.0)), 1), len(ends) - 1)
    (first, low), (last, high) = ends[place - 1], ends[place]
    return low + (step - first) * (high - low) / (last - first)
