"""Plot a metric over a parameter's values: a dot for each job, a bar for each mean."""

import math
import statistics
from io import StringIO

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from convtrain.sweeps.results import SEED, Sweep
from convtrain.text import as_mathtext, boxes_for_missing_letters

INK, SOFT, DOT, MEAN = "#1f2430", "#667085", "#7aa7ff", "#1d4fb8"
LOG_RATIO = 10.0  # largest / smallest number, from which on the axis is logarithmic
MAX_LETTERS = 14  # in a label
MAX_LABELS = 12


def draw_effect(sweep: Sweep, key: str) -> str | None:
    """Return an SVG, or None if fewer than two values have a result."""
    by_value: dict[str, list[float]] = {}
    for job in sweep.jobs:
        if key in job.settings and (value := job.number(sweep.metric)) is not None:
            by_value.setdefault(job.settings[key], []).append(value)
    if len(by_value) < 2:
        return None
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    positions = _positions(axes, list(by_value))
    for setting, results in by_value.items():
        axes.scatter([positions[setting]] * len(results), results, s=22, color=DOT, alpha=0.75,
                     linewidths=0, zorder=3)  # fmt: skip
    order = sorted(by_value, key=positions.__getitem__)
    means = [statistics.fmean(by_value[setting]) for setting in order]
    at = [positions[setting] for setting in order]
    if len(order) <= MAX_LABELS:
        line = "-" if key != SEED and _numbers(order) else "none"
        axes.plot(at, means, linestyle=line, linewidth=1.2, marker="_", markersize=16,
                  markeredgewidth=2, color=MEAN, zorder=4)  # fmt: skip
    _dress(axes, sweep, key)
    text = StringIO()
    with (
        rc_context({"svg.fonttype": "path", "svg.hashsalt": key}),
        boxes_for_missing_letters(),
    ):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _positions(axes: Axes, values: list[str]) -> dict[str, float]:
    numbers = _numbers(values)
    if numbers is None:
        places = {value: float(index) for index, value in enumerate(values)}
        axes.set_xticks(range(len(values)), [as_mathtext(_short(value)) for value in values])
        axes.set_xlim(-0.5, len(values) - 0.5)
        if sum(len(_short(value)) for value in values) > 36:
            axes.tick_params(axis="x", labelrotation=30)
        return places
    if min(numbers) > 0 and max(numbers) / min(numbers) >= LOG_RATIO:
        axes.set_xscale("log")
    if len(values) <= MAX_LABELS:
        axes.set_xticks(numbers, [_short(value) for value in values])
        axes.minorticks_off()
    axes.margins(x=0.12)
    return dict(zip(values, numbers, strict=True))


def _numbers(values: list[str]) -> list[float] | None:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _dress(axes: Axes, sweep: Sweep, key: str) -> None:
    if sweep.more_is_better:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title(as_mathtext(key), loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.set_ylabel(sweep.metric, fontsize=9, color=SOFT)
    axes.margins(y=0.12)
    axes.grid(axis="y", color="#e4e7ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelsize=8.5, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#d0d5dd")


def _short(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value if len(value) <= MAX_LETTERS else f"{value[: MAX_LETTERS - 1]}…"
