"""Charts of a run's gradient norms: a heatmap of layers by steps, and the flow over layers."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from convtrain.errors import ConfigError, TrainingError
from convtrain.gradients.abbreviate import abbreviate
from convtrain.gradients.reading import ABSENT, NO_LOGARITHM, NONFINITE, ZERO, Norms
from convtrain.process.atomic import atomic_write
from convtrain.text import as_mathtext, boxes_for_missing_letters

DOTS_PER_INCH = 110
INCHES_PER_LABEL, MAX_NAME_LENGTH = 0.135, 44
BINS = 400  # each is over two dots wide, so one bad step among thousands is visible
KINDS = tuple(zip(NO_LOGARITHM, ("#d4d4d4", "#000000", "#ff1f5b"), strict=True))


def draw_heatmap(norms: Norms) -> Figure:
    """Draw the norm of each layer (down) at each step (across), the largest in each bin of steps.

    Norms without a logarithm have their own colours; triangles mark the bins with NaN or infinity.
    """
    logarithms, kinds = _binned(norms)
    rows, bins = kinds.shape
    height = max(min(0.2 * rows, 20.0), 2.5, 2.5 * rows / DOTS_PER_INCH)
    figure = Figure(figsize=(12, height + 1.6), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    extent = (0, len(norms.steps), rows - 0.5, -0.5)
    low, high = _limits(logarithms[np.isfinite(logarithms)])
    colours = ListedColormap([colour for _, colour in KINDS])
    for values, colormap, bottom, top in (
        (kinds, colours, -0.5, len(KINDS) - 0.5),
        (logarithms, "viridis", low, high),
    ):
        image = axes.imshow(
            values, colormap, vmin=bottom, vmax=top, extent=extent, aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
    bar = figure.colorbar(
        image, ax=axes, pad=0.01, aspect=7 * height, extend="both", extendfrac=0.12 / height
    )
    bar.set_label("log10 of the gradient norm (L2)")
    shown = [Patch(facecolor=c, label=n) for i, (n, c) in enumerate(KINDS) if (kinds == i).any()]
    if shown:
        figure.legend(handles=shown, loc="outside lower center", ncols=len(shown), frameon=False)
    marks = (np.flatnonzero((kinds == NONFINITE).any(0)) + 0.5) * len(norms.steps) / bins
    axes.plot(
        marks, np.full(len(marks), 1 + 0.06 / height), "v", ms=4, c=KINDS[NONFINITE][1],
        transform=axes.get_xaxis_transform(), clip_on=False,
    )  # fmt: skip
    _label_steps(axes, norms.steps)
    _label_layers(axes.yaxis, norms.names, height)
    return figure


def draw_flow(norms: Norms) -> Figure:
    """Draw each layer's mean and largest norm over the run, from the first layer to the last."""
    count = len(norms.names)
    width = max(min(0.2 * count + 2, 24.0), 7.0)
    height = 4.5 + 0.075 * min(max(map(len, norms.names)), MAX_NAME_LENGTH)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot(yscale="log", ylabel="gradient norm (L2) over the run")
    largest = norms.over_steps(np.max)
    columns, size = np.arange(count), 2.5 if count > 100 else 5
    for name, marker, values in (
        ("largest", "^", largest),
        ("mean", "o", norms.over_steps(np.mean)),
    ):
        drawn = np.where(values > 0, values, np.nan)
        axes.plot(columns, drawn, f"{marker}-", label=name, lw=1.2, ms=size)
    edge = axes.get_xaxis_transform()  # y runs from 0 (bottom) to 1 (top)
    for name, marker, kind, at, where in (
        ("always exactly zero", "v", ZERO, 0.02, largest == 0),
        ("NaN or infinity in some step", "X", NONFINITE, 0.98, norms.nonfinite.any(0)),
    ):
        if where.any():
            axes.plot(
                columns[where], np.full(where.sum(), at), marker, label=name, c=KINDS[kind][1],
                ms=size + 1, transform=edge,
            )  # fmt: skip
    axes.set_xlim(-0.5, count - 0.5)
    axes.margins(y=0.08)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    _label_layers(axes.xaxis, norms.names, width - 1)
    axes.tick_params(axis="x", rotation=90)
    return figure


def write_chart(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, or raise ConfigError."""
    content = BytesIO()
    with boxes_for_missing_letters():
        figure.savefig(content, format="png")
    try:
        with atomic_write(path) as writer:
            writer.write(content.getbuffer())
    except TrainingError as error:
        raise ConfigError(f"{error}; choose another folder with --out DIR") from None
    return path


def _binned(norms: Norms) -> tuple[np.ndarray, np.ndarray]:
    """Return log10 of the norms and the kinds (P, bins); each is NaN where the other is set."""
    starts = np.unique(np.linspace(0, len(norms.steps), BINS + 1).astype(int)[:-1])
    largest = np.maximum.reduceat(np.where(norms.finite, norms.values, -1), starts).T
    present = np.logical_or.reduceat(norms.present, starts).T
    nonfinite = np.logical_or.reduceat(norms.nonfinite, starts).T
    known = [nonfinite, ~present, largest == 0]
    kinds = np.select(known, [NONFINITE, ABSENT, ZERO], np.nan)
    logarithms = np.full(largest.shape, np.nan)
    np.log10(largest, out=logarithms, where=np.isnan(kinds))
    return logarithms, kinds


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return the range of colours without a few outliers, which would compress it."""
    if not len(values):
        return -1.0, 1.0
    low, high = np.percentile(values, [0.5, 99.5])
    return (low, high) if high - low > 0.2 else (low - 0.5, high + 0.5)


def _label_steps(axes: Axes, steps: np.ndarray) -> None:
    ticks = MaxNLocator(10, integer=True).tick_values(steps[0], steps[-1])
    ticks = ticks[(ticks >= steps[0]) & (ticks <= steps[-1])]
    positions = np.interp(ticks, steps, np.arange(len(steps))) + 0.5
    apart = np.diff(positions, prepend=-np.inf) > len(steps) / 20  # steps may be uneven
    axes.set_xticks(positions[apart], [f"{tick:,.0f}" for tick in ticks[apart]])
    axes.set_xlabel("step")


def _label_layers(axis: Axis, names: Sequence[str], inches: float) -> None:
    every = int(np.ceil(len(names) * INCHES_PER_LABEL / inches))
    labels = list(map(as_mathtext, abbreviate(names, MAX_NAME_LENGTH)))
    axis.set_ticks(range(0, len(names), every), labels[::every], fontsize=8)
