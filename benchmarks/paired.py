"""Interleaved timing: A B A B ..., and the ratio pair by pair."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """Times of two ways of doing the same work, in seconds, and their ratio pair by pair."""

    first: float
    second: float
    median: float
    low: float
    high: float

    def row(self, what: str) -> str:
        return (
            f"| {what} | {self.first * 1e3:.2f} | {self.second * 1e3:.2f} | "
            f"{self.median:.3f} | {self.low:.3f}-{self.high:.3f} |"
        )


def compare(
    first: Callable[[], object], second: Callable[[], object], *, pairs: int, calls: int = 1
) -> Ratio:
    """Time ``calls`` calls of each in turn, ``pairs`` times, after one round that does not count.

    The order within a pair alternates, so that neither side always comes second.
    """
    return compare_timed(lambda: _time(first, calls), lambda: _time(second, calls), pairs=pairs)


def compare_timed(first: Callable[[], float], second: Callable[[], float], *, pairs: int) -> Ratio:
    """The same for work that takes its own time, and returns it in seconds."""
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
    """Compare seconds taken in pairs."""
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
    """Return the machine in a line, for the head of a table."""
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
