"""Count the steps of a whole record, piece by piece, in bounded memory."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from convtrain.gradients.diagnosis.online import Block, Detector
from convtrain.gradients.diagnosis.rules import Alarm
from convtrain.gradients.reading import skipped_steps
from convtrain.gradients.record.store import TABLES

ROUNDING = 1e-4  # float32 rounding: a clip coefficient of 0.9999999 clips nothing


class StepCounts:
    """Exact counts of a record's steps; ``clippable`` ones are neither skipped nor non-finite."""

    def __init__(self) -> None:
        self.recorded = self.first = self.last = self.clipped = self.clippable = 0
        self.skipped, self.skipped_steps = np.zeros(0, bool), np.zeros(0, np.int64)
        self.largest = (-np.inf, 0)
        self.detector, self.alarms = Detector(), dict[str, Alarm]()

    def through(self, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the pieces of the table of steps unchanged, and count their steps."""
        for piece in pieces:
            if piece.num_rows:
                self._add(piece)
            yield piece

    def _add(self, table: pa.Table) -> None:
        steps = step_columns(table)
        step, norm = steps["step"], steps["norm"]
        self.first, self.last = self.first if self.recorded else int(step[0]), int(step[-1])
        self.recorded += len(step)
        self.skipped = np.append(self.skipped, steps["skipped"])
        self.skipped_steps = np.append(self.skipped_steps, skipped_steps(table))
        self.clippable += int(steps["usable"].sum())
        self.clipped += int(steps["clipped"].sum())
        finite = np.where(steps["finite"], norm, -np.inf)
        row = int(np.argmax(finite))
        self.largest = max(self.largest, (float(finite[row]), int(step[row])))
        nothing = np.zeros((len(step), 0))
        for alarm in self.detector.look(Block((), steps, nothing, nothing > 0)):
            self.alarms.setdefault(alarm.kind, alarm)


def step_columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Return a :class:`Block`'s columns and masks; a table may lack any column but ``step``.

    ``kept`` is norm after clipping / norm before it, computed or recorded.
    """
    nothing = pa.chunked_array([pa.nulls(table.num_rows)])
    columns = dict.fromkeys(TABLES["steps"], nothing)
    columns |= {name: table[name] for name in table.column_names}

    def numbers(name: str) -> np.ndarray:
        return np.asarray(columns[name].cast(pa.float64()).to_numpy())

    norm, nonfinite = numbers("norm"), numbers("nonfinite")
    if "nonfinite" not in table.column_names and "norm" in table.column_names:
        nonfinite = ~np.isfinite(norm)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = numbers("clipped_norm") / norm
    kept = np.where(np.isfinite(kept), kept, numbers("clip_coefficient"))
    skipped = numbers("skipped") > 0
    usable = ~skipped & ~(nonfinite > 0)
    return {
        "step": numbers("step").astype(np.int64),
        "norm": norm,
        "skipped": skipped,
        "nonfinite": np.nan_to_num(nonfinite).astype(np.int64),
        "first_nonfinite": np.array(columns["first_nonfinite"].to_pylist(), object),
        "loss": numbers("loss"),
        "loss_known": ~np.asarray(columns["loss"].is_null()),
        "usable": usable,
        "finite": usable & np.isfinite(norm),
        "kept": kept,
        "clipped": usable & (kept < 1 - ROUNDING),
    }
