"""What a record says of a run, added up part by part: as much memory for a long run as for a short.

Counts are exact. Medians are those of an evenly spread sample, where a series is longer than it.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from convtrain.gradients.diagnosis.online import Block, Detector

STEPS_SAMPLED, PARAMETER_STEPS_SAMPLED = 4096, 1024
ROUNDING = 1e-4  # of float32: a coefficient of 0.9999999 clips nothing
MOST_EXPLOSIONS = 1000


class Sample:
    """Values of a series, evenly spread over it; all of them up to ``most``."""

    def __init__(self, most: int) -> None:
        self._most, self._count = most, 0
        self.every, self.values = 1, np.empty(0)

    def add(self, values: np.ndarray) -> None:
        kept = values[-self._count % self.every :: self.every]
        self.values = np.concatenate([self.values, kept])
        self._count += len(values)
        while len(self.values) > self._most:
            self.values, self.every = self.values[::2], 2 * self.every


class StepAggregate:
    """The table of steps.

    Attributes:
        count, first, last: of the recorded steps.
        skipped, bad, lost: how many the scaler skipped, how many had a gradient that is not finite,
            and how many a loss that is not though the gradients were.
        first_bad: the first of these steps, and the parameter, if it is known.
        first_lost: the first of those steps.
        usual: a sample of the finite norms.
        all_zero: whether these are all exactly zero.
        clipped, unbroken: steps that clipping has cut, of those that it could have.
        kept: a sample of what clipping left of those that it cut, in 0-1.
        explosion, more_explosions: the first one's message, and the steps of others.
    """

    def __init__(self) -> None:
        self.count = self.skipped = self.bad = self.lost = self.clipped = self.unbroken = 0
        self.first = self.last = self.first_lost = 0
        self.first_bad: tuple[int, str | None] = (0, None)
        self.usual, self.kept = Sample(STEPS_SAMPLED), Sample(STEPS_SAMPLED)
        self.all_zero = True
        self.explosion, self.more_explosions = "", list[int]()
        self._watch = Detector()
        self._skipped_before = Sample(STEPS_SAMPLED)

    def add(self, steps: pa.Table) -> None:
        step = numbers(steps, "step")
        if not len(step):
            return
        norm, skipped = numbers(steps, "norm"), numbers(steps, "skipped") > 0
        bad = ~skipped & _is_nonfinite(steps)
        usable = ~skipped & ~bad
        lost = usable & _is_lost(steps)
        if bad.any() and not self.bad:
            row = int(np.argmax(bad))
            self.first_bad = int(step[row]), _strings(steps, "first_nonfinite")[row]
        if lost.any() and not self.lost:
            self.first_lost = int(step[np.argmax(lost)])
        self._skipped_before.add(self.skipped + np.cumsum(skipped) - skipped)
        self.first, self.last = self.first if self.count else int(step[0]), int(step[-1])
        self.count += len(step)
        self.skipped += int(skipped.sum())
        self.bad += int(bad.sum())
        self.lost += int(lost.sum())
        finite = norm[usable & np.isfinite(norm)]
        self.usual.add(finite)
        self.all_zero &= not finite.any()
        kept = _kept(steps)[usable]
        clipped = kept < 1 - ROUNDING
        self.unbroken += len(kept)
        self.clipped += int(clipped.sum())
        self.kept.add(kept[clipped])
        self._look_for_explosions(step[usable], norm[usable])

    def skipped_of_later_half(self) -> tuple[int, int]:
        """Return how many steps of the later half were skipped, and how many it has."""
        every = self._skipped_before.every
        place = -(-(self.count // 2) // every)
        place = min(place, len(self._skipped_before.values) - 1)
        before = int(self._skipped_before.values[place])
        return self.skipped - before, self.count - place * every

    def _look_for_explosions(self, step: np.ndarray, norm: np.ndarray) -> None:
        """Find what the alarms call so while training."""
        none, no_step = np.zeros((len(step), 0)), np.zeros(len(step), np.int64)
        totals = Block(
            names=(),
            step=step.astype(np.int64),
            norm=norm,
            norms=none,
            present=none > 0,
            skipped=no_step > 0,
            nonfinite=no_step,
            first_nonfinite=(None,) * len(step),
        )
        for alarm in self._watch.look(totals):
            if not self.explosion:
                self.explosion = alarm.message
            elif len(self.more_explosions) < MOST_EXPLOSIONS:
                self.more_explosions.append(alarm.step)


class ParameterAggregate:
    """The table of parameters.

    A step in which nothing has a gradient, as after a loss of exactly zero, tells nothing of one.

    Attributes:
        names: in the order of the step that has most parameters: others can be thawed later.
        told, zeros: by name, how many steps tell of it, and in how many its gradient was zero.
        norms, ratios: by name, samples of these steps' norms, and of the update ratios.
    """

    def __init__(self) -> None:
        self.told: dict[str, int] = {}
        self.zeros: dict[str, int] = {}
        self.norms: dict[str, Sample] = {}
        self.ratios: dict[str, Sample] = {}
        self._fullest: list[str] = []

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys([*self._fullest, *self.told]))

    def add(self, parameters: pa.Table) -> None:
        norm, step = numbers(parameters, "norm"), numbers(parameters, "step")
        ratio = numbers(parameters, "update_ratio")
        known = np.isfinite(ratio)
        tells = np.isfinite(norm) & np.isin(step, step[norm > 0])
        for name, rows in self._rows_by_name(parameters, step):
            if name not in self.told:
                self.told[name] = self.zeros[name] = 0
                self.norms[name] = Sample(PARAMETER_STEPS_SAMPLED)
                self.ratios[name] = Sample(PARAMETER_STEPS_SAMPLED)
            values = norm[rows[tells[rows]]]
            self.told[name] += len(values)
            self.zeros[name] += int((values == 0).sum())
            self.norms[name].add(values)
            self.ratios[name].add(ratio[rows[known[rows]]])

    def _rows_by_name(
        self, parameters: pa.Table, step: np.ndarray
    ) -> Iterable[tuple[str, np.ndarray]]:
        if "parameter" not in parameters.column_names or not parameters.num_rows:
            return []
        column = parameters["parameter"].cast(pa.large_string()).combine_chunks()
        column = column.dictionary_encode()
        codes, names = column.indices.to_numpy(), column.dictionary.to_pylist()
        _, first, count = np.unique(step, return_index=True, return_counts=True)
        fullest = np.argmax(count)
        if count[fullest] > len(self._fullest):
            whole = codes[first[fullest] : first[fullest] + count[fullest]]
            self._fullest = [names[code] for code in whole]
        ends = np.cumsum(np.bincount(codes, minlength=len(names)))
        by_code = np.split(np.argsort(codes, kind="stable"), ends[:-1])
        return zip(names, by_code, strict=True)


def numbers(table: pa.Table, column: str) -> np.ndarray:
    """Return a column as float64 (rows,), NaN where there is nothing."""
    if column not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return np.asarray(table[column].cast(pa.float64()).to_numpy(), np.float64)


def _strings(table: pa.Table, column: str) -> list[str | None]:
    if column not in table.column_names:
        return [None] * table.num_rows
    return [*table[column].to_pylist()]


def _is_nonfinite(steps: pa.Table) -> np.ndarray:
    if "nonfinite" in steps.column_names:
        return numbers(steps, "nonfinite") > 0
    if "norm" in steps.column_names:
        finite: np.ndarray = np.isfinite(numbers(steps, "norm"))
        return ~finite
    return np.zeros(steps.num_rows, bool)


def _is_lost(steps: pa.Table) -> np.ndarray:
    if "loss" not in steps.column_names:
        return np.zeros(steps.num_rows, bool)
    known = ~np.asarray(steps["loss"].is_null())
    lost: np.ndarray = known & ~np.isfinite(numbers(steps, "loss"))
    return lost


def _kept(steps: pa.Table) -> np.ndarray:
    """Return what clipping left of each step's norm, from 0 to 1; NaN where that is unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = numbers(steps, "clipped_norm") / numbers(steps, "norm")
    return np.where(np.isfinite(kept), kept, numbers(steps, "clip_coefficient"))
