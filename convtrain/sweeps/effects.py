"""Plot a sweep's metric over the values of a parameter: a dot for each job, a bar for each mean."""

import math
import statistics

from markupsafe import Markup

from convtrain.pages.plots import Series, plot
from convtrain.pages.scales import Axis
from convtrain.sweeps.results import REPLICATES, Sweep

LOG_RATIO = 10.0  # largest / smallest number, from which on the axis is logarithmic
MAX_TICKS = 12


def draw_effect(sweep: Sweep, key: str) -> Markup | None:
    """Return a figure, or None if fewer than two values have a result."""
    by_value: dict[str, list[float]] = {}
    for job in sweep.jobs:
        if key in job.settings and (value := job.number(sweep.metric)) is not None:
            by_value.setdefault(job.settings[key], []).append(value)
    if len(by_value) < 2:
        return None
    values = list(by_value)
    axis, places = _axis(key, values)
    dots = [(at, y) for at, value in zip(places, values, strict=True) for y in by_value[value]]
    means = sorted(
        (at, statistics.fmean(by_value[value])) for at, value in zip(places, values, strict=True)
    )
    series = [Series("jobs", *_columns(dots), kind="dots", colour=1)]
    if len(values) <= MAX_TICKS:
        if key not in REPLICATES and not axis.labels:
            series.append(Series("", *_columns(means), colour=2, faint=True))
        series.append(Series("mean", *_columns(means), kind="means", colour=2))
    return plot(key, series, axis, Axis(sweep.metric, percent=sweep.more_is_better))


def _axis(key: str, values: list[str]) -> tuple[Axis, list[float]]:
    """Return the axis of a parameter, and where each of its values is on it."""
    numbers = _numbers(values)
    if numbers is None:
        return Axis(key, labels=values), [float(index) for index in range(len(values))]
    log = min(numbers) > 0 and max(numbers) / min(numbers) >= LOG_RATIO
    ticks = numbers if len(values) <= MAX_TICKS else ()
    return Axis(key, log=log, ticks=ticks), numbers


def _numbers(values: list[str]) -> list[float] | None:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
