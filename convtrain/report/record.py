"""A gradient record of any length in a few hundred columns, for the page of a run."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convtrain.errors import MissingDataError
from convtrain.gradients.diagnosis.rules import MIN_TREND_STEPS, TREND_PARTS
from convtrain.gradients.reading import (
    ABSENT,
    NONFINITE,
    ZERO,
    Norms,
    gather_norms,
    load_steps,
    skipped_steps,
)
from convtrain.gradients.record.store import load_in_pieces

MOST_GROUPS = 400


class Condensed(NamedTuple):
    """Gradient norms by layer (L) and group of equally many consecutive steps (G).

    Attributes:
        layers: names, in the order of the network; a layer that is unfrozen later comes last.
        first, last: the first recorded step, and the last step of the last group.
        recorded: number of recorded steps.
        largest: float64 (L, G), the largest finite norm of each group, NaN without one.
        kinds: int (L, G), why a group has no positive norm: its place in ``NO_LOGARITHM``, or -1.
            NaN or infinity in any step makes its group ``NONFINITE``.
        early, late: float64 (L), the mean finite norm in the first and the last tenth of the
            steps, without those that the loss scaler skipped; NaN without one. Both are the mean
            of all steps if these are too few for a trend.
    """

    layers: Sequence[str]
    first: int
    last: int
    recorded: int
    largest: np.ndarray
    kinds: np.ndarray
    early: np.ndarray
    late: np.ndarray


def read_condensed(run_dir: Path, most: int = MOST_GROUPS) -> Condensed | None:
    """Read a run's record in bounded memory; return None if there is none."""
    groups = _Groups(most)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a part that cannot be read
            skipped = skipped_steps(load_steps(run_dir))
            for piece in load_in_pieces(run_dir, "parameters"):
                groups.add(gather_norms(piece, skipped).by_layer())
    except MissingDataError:
        return None
    return groups.condensed()


class _Groups:
    """Groups of ``stride`` steps each; once there are too many, two become one."""

    def __init__(self, most: int) -> None:
        self.most, self.stride, self.layers = most, 1, list[str]()
        self.first = self.last = self.recorded = 0
        self.peaks = np.zeros((3, 0, 0))  # largest norm, is present, is not finite; by group, layer
        self.sums = np.zeros((2, 0, 0))  # finite norms of steps that were not skipped, their number

    def add(self, norms: Norms) -> None:
        """Add the steps that follow those added before."""
        self.first, self.last = self.first or int(norms.steps[0]), int(norms.steps[-1])
        while (self.last - self.first) // self.stride >= self.most:
            self._join_pairs()
        groups = (norms.steps - self.first) // self.stride
        rows, starts = np.unique(groups, return_index=True)
        self.recorded += len(norms.steps)
        self.layers += [name for name in norms.names if name not in self.layers]
        added = (0, int(rows[-1]) + 1 - self.peaks.shape[1])
        wider = (0, len(self.layers) - self.peaks.shape[2])
        self.peaks = np.pad(self.peaks, ((0, 0), added, wider), constant_values=-1)
        self.sums = np.pad(self.sums, ((0, 0), added, wider))
        columns = np.array([self.layers.index(name) for name in norms.names])
        place = np.ix_(rows, columns)
        counted = norms.finite & ~norms.skipped[:, None]
        values = (np.where(norms.finite, norms.values, -1), norms.present, norms.nonfinite)
        for peaks, of_steps in zip(self.peaks, values, strict=True):
            peaks[place] = np.maximum(peaks[place], np.maximum.reduceat(of_steps, starts))
        for sums, of_steps in zip(
            self.sums, (np.where(counted, norms.values, 0), counted.astype(int)), strict=True
        ):
            sums[place] += np.add.reduceat(of_steps, starts)

    def condensed(self) -> Condensed:
        # A recorded step stands for those after it that are not recorded.
        is_recorded = (self.peaks[1] >= 0).any(1)
        filled = np.maximum.accumulate(np.where(is_recorded, np.arange(len(is_recorded)), 0))
        largest, present, nonfinite = (peaks[filled].T for peaks in self.peaks)
        kinds = np.select(
            [nonfinite > 0, present <= 0, largest == 0], [NONFINITE, ABSENT, ZERO], -1
        )
        groups = self.peaks.shape[1]
        tenth = groups if self.recorded < MIN_TREND_STEPS else max(groups // TREND_PARTS, 1)
        early, late = (
            np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
            for total, count in (self.sums[:, :tenth].sum(1), self.sums[:, -tenth:].sum(1))
        )
        return Condensed(
            self.layers, self.first, self.first + groups * self.stride - 1, self.recorded,
            np.where(largest > 0, largest, np.nan), kinds, early, late,
        )  # fmt: skip

    def _join_pairs(self) -> None:
        groups, layers = self.peaks.shape[1:]
        odd = ((0, 0), (0, groups % 2), (0, 0))
        pairs = (-(-groups // 2), 2, layers)
        self.peaks = np.pad(self.peaks, odd, constant_values=-1).reshape(3, *pairs).max(2)
        self.sums = np.pad(self.sums, odd).reshape(2, *pairs).sum(2)
        self.stride *= 2
