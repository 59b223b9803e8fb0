"""Axes of plots: where a value is between the ends of an axis, and the ticks with their texts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MAX_TICKS = 6
MAX_TICK_LETTERS = 21  # of a label
LETTER = 0.028  # width of a letter as a fraction of an axis, on the narrowest screens
HUGE = 1e150  # from which on, or below its inverse, float64 may overflow
PADDING = 0.06  # of the range, at both ends of an axis


@dataclass(frozen=True)
class Axis:
    """An axis of a plot.

    Attributes:
        label: name and unit, such as ``loss (nats)``.
        log: logarithmic; values that are not positive are not drawn.
        percent: writes 0.95 as 95%.
        labels: names of the positions 0, 1, ... in place of numbers.
        low, high: the ends, if not those of the data.
        ticks: the values that have a tick, if not round numbers.
    """

    label: str
    log: bool = False
    percent: bool = False
    labels: Sequence[str] = ()
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] = ()


class Tick(NamedTuple):
    at: float
    """Between 0 and 1."""
    text: str


@dataclass(frozen=True)
class Scale:
    """An axis whose ends are known. ``low`` and ``high`` are values, not logarithms."""

    axis: Axis
    low: float
    high: float

    def at(self, values: np.ndarray | Sequence[float] | float) -> np.ndarray:
        """Return positions between 0 and 1; NaN where a value has none."""
        given = np.asarray(values, np.float64)
        low, high = self.low, self.high
        if self.axis.log:
            given = np.log10(np.where(given > 0, given, np.nan))
            low, high = math.log10(low), math.log10(high)
        return np.where(np.isfinite(given), (given - low) / (high - low), np.nan)

    def ticks(self, count: int = MAX_TICKS) -> list[Tick]:
        if labels := self.axis.labels:
            every = max(1, math.ceil(len(labels) / count))
            chosen = range(0, len(labels), every)
            return [Tick(float(self.at(i)), shortened(labels[i])) for i in chosen]
        if self.axis.ticks:
            return _apart([Tick(float(self.at(v)), self.text(v)) for v in sorted(self.axis.ticks)])
        values = _log_ticks(self.low, self.high) if self.axis.log else nice(self.low, self.high)
        return [Tick(float(self.at(value)), self.text(value)) for value in values]

    def text(self, value: float) -> str:
        """Return the text beside a tick."""
        if self.axis.percent:
            return f"{round(100 * value, 8):g}%"
        return plain(value)


def scale(axis: Axis, values: Sequence[np.ndarray], *, padded: bool) -> Scale:
    """Return the scale of an axis for these values."""
    if axis.labels:
        return Scale(axis, -0.5, len(axis.labels) - 0.5)
    known = np.concatenate([np.asarray(v, np.float64).ravel() for v in values] or [np.empty(0)])
    known = known[np.abs(known) < HUGE]
    known = known[known > 1 / HUGE] if axis.log else known
    low, high = (float(known.min()), float(known.max())) if len(known) else (1.0, 1.0)
    low, high = _padded(low, high, axis.log) if padded or low == high else (low, high)
    low, high = (
        end if fixed is None or (axis.log and fixed <= 0) else fixed
        for fixed, end in zip((axis.low, axis.high), (low, high), strict=True)
    )
    if not low < high:
        low, high = _padded(min(low, high), max(low, high), axis.log)
    return Scale(axis, low, high)


def _apart(ticks: list[Tick]) -> list[Tick]:
    """Leave out the ticks whose texts would overlap the one before them."""
    kept: list[Tick] = []
    for tick in ticks:
        letters = 2 + len(tick.text) + len(kept[-1].text) if kept else 0
        if not kept or tick.at - kept[-1].at > LETTER * letters / 2:
            kept.append(tick)
    return kept


def _padded(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        factor = (high / low) ** PADDING if high > low else 2.0
        return low / factor, high * factor
    margin = PADDING * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def nice(low: float, high: float, count: int = MAX_TICKS) -> list[float]:
    """Return round numbers between two: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / MAX_TICKS))
    decades = [10.0**power for power in range(first, last + 1, every)]
    if len(decades) > 2:
        return decades
    for multiples in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        powers = range(first - 1, last + 1)
        values = [m * 10.0**power for power in powers for m in multiples]
        if len(inside := [value for value in values if low <= value <= high]) > 2:
            return inside[:: math.ceil(len(inside) / MAX_TICKS)]
    return nice(low, high, 4)


def plain(value: float) -> str:
    """Return a number with four significant digits: ``12,500``, ``0.025``, ``2.5e-5``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e7:
        text = f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def shortened(text: str, letters: int = MAX_TICK_LETTERS) -> str:
    """Return a text with its middle left out where it is too long."""
    if len(text) <= letters:
        return text
    head = (letters - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (letters - 1 - head) :]}"
