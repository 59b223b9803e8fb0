"""The curves of a run: each metric over optimiser steps and over epochs, from ``metrics.csv``."""

import csv
import io
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

from convtrain.errors import CorruptDataError, first_line

FILE = "metrics.csv"
NOT_METRICS = ("step", "epoch")
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
        for row in csv.DictReader(io.StringIO(complete, newline="")):
            step = int(float(row.get("step") or 0))
            if row.get(AT_THE_END) and row.get("epoch"):
                ends[step] = float(row["epoch"]) + 1
            for name, value in row.items():
                if value and name not in NOT_METRICS:
                    curve = curves.setdefault(name, Curve())
                    curve.steps.append(step)
                    curve.values.append(float(value))
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise CorruptDataError(f"{path}: damaged, {first_line(error)}") from error
    for curve in curves.values():
        curve.epochs.extend(_epoch(step, sorted(ends.items())) for step in curve.steps)
    return curves


def _epoch(step: int, ends: list[tuple[int, float]]) -> float:
    """Return how many epochs a step is after the start; the last known pace goes on."""
    if len(ends) < 2:
        return float("nan")
    place = min(max(bisect_left(ends, (step, 0.0)), 1), len(ends) - 1)
    (first, low), (last, high) = ends[place - 1], ends[place]
    return low + (step - first) * (high - low) / (last - first)
