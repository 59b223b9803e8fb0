"""Time alternately, A B A B ..., and compare pair by pair."""

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Ratio:
    """Times of two ways to do the same work, in seconds, and their ratio pair by pair."""

    first: float
    second: float
    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Ratio":
        """Return the ratio with both times in another unit, or per step."""
        return replace(self, first=self.first * factor, second=self.second * factor)

    def row(self, what: str) -> str:
        return (
            f"| {what} | {self.first * 1e3:.2f} | {self.second * 1e3:.2f} | "
            f"{self.median:.3f} | {self.low:.3f}-{self.high:.3f} |"
        )


@dataclass(frozen=True)
class Result:
    """A row of the table; the ratio must not exceed ``goal``.

    Without a peer, ``ratio.second`` is NaN, and the goal is for ``ratio.first``.
    """

    what: str
    ratio: Ratio
    unit: str
    goal: float | None = None

    @classmethod
    def alone(cls, what: str, values: Sequence[float], unit: str, goal: float | None) -> "Result":
        """Return the row of a value that has no peer."""
        ordered, quarter = sorted(values), len(values) // 4
        middle = statistics.median(ordered)
        low, high = ordered[quarter], ordered[-1 - quarter]
        return cls(what, Ratio(middle, math.nan, middle, low, high), unit, goal)

    def row(self) -> str:
        ratio, unit = self.ratio, self.unit
        goal = "" if self.goal is None else f"{self.goal:g}"
        if math.isnan(ratio.second):
            return (
                f"| {self.what} | {ratio.first:.2f} {unit} | | | "
                f"{ratio.low:.2f}-{ratio.high:.2f} {unit} | {goal and f'{goal} {unit}'} |"
            )
        return (
            f"| {self.what} | {ratio.first:.2f} {unit} | {ratio.second:.2f} {unit} | "
            f"{ratio.median:.3f} | {ratio.low:.3f}-{ratio.high:.3f} | {goal} |"
        )


HEAD = (
    "| work | first | second | first / second | middle half | goal |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def print_table(results: Sequence[Result]) -> None:
    """Print the machine, and a row for each result."""
    print(f"{machine()}\n\n{HEAD}")
    for result in results:
        print(result.row(), flush=True)


def compare_all(
    ways: Mapping[str, Callable[[], float]], *, against: str, rounds: int
) -> dict[str, Ratio]:
    """Time several ways to do the same work in turn, in seconds, and compare each with one.

    Each way first runs once untimed. The order reverses with every round.
    """
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds):
        for name in list(ways)[:: -1 if index % 2 else 1]:
            seconds[name].append(ways[name]())
    return {name: paired(seconds[name], seconds[against]) for name in ways if name != against}


def compare(
    first: Callable[[], object], second: Callable[[], object], *, pairs: int, calls: int = 1
) -> Ratio:
    """Time ``calls`` calls of each in turn, ``pairs`` times, after one untimed round.

    The order within a pair alternates.
    """
    return compare_timed(lambda: _time(first, calls), lambda: _time(second, calls), pairs=pairs)


def compare_timed(first: Callable[[], float], second: Callable[[], float], *, pairs: int) -> Ratio:
    """Compare as :func:`compare` does, for work that times itself and returns seconds."""
    first(), second()
    times: list[tuple[float, float]] = []
    for index in range(pairs):
        if index % 2:
            later = second()
            times.append((first(), later))
        else:
            times.append((first(), second()))
    return paired([a for a, _ in times], [b for _, b in times])


def paired(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Compare times taken in pairs; low and high bound the middle half."""
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    quarter = len(ratios) // 4
    return Ratio(
        first=statistics.median(first),
        second=statistics.median(second),
        median=statistics.median(ratios),
        low=ratios[quarter],
        high=ratios[-1 - quarter],
    )


def machine() -> str:
    """Return a line on the machine, for the head of a table."""
    processor = platform.processor() or platform.machine()
    return (
        f"{os.cpu_count()} CPU cores ({processor}), {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def _time(work: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls
