"""Draw a table of numbers as colours: norms of layers by steps, or a confusion matrix."""

import json
import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from convtrain.pages.images import data_uri
from convtrain.pages.page import draw
from convtrain.pages.plots import LABELS_ACROSS, LETTERS_ACROSS, MAX_HEIGHT, ROW_HEIGHT
from convtrain.pages.scales import Axis, Scale, scale

# viridis of matplotlib at 17 even places, by Smith and van der Walt; CC0.
VIRIDIS = (
    "440154", "48186a", "472d7b", "424086", "3b528b", "33638d", "2c728e", "26828e", "21918c",
    "1fa088", "28ae80", "3fbc73", "5ec962", "84d44b", "addc30", "d8e219", "fde725",
)  # fmt: skip
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
MAX_WRITTEN = 12  # classes; the counts of more are at the pointer only
MAX_HOVERED = 60_000  # cells
STRONG = 0.55  # opacity, from which on a count is white
WIDTHS = (180, 240, 300, 360, 420, 480)  # pixels, for which the style sheet has a rule
DIGIT, GAP = 6.8, 5.0  # pixels

Cell = tuple[float, float, str, str]  # left and top in percent, text, kind


def heat_map(
    title: str, values: np.ndarray, x: Axis, y: Axis, *, label: str, log: bool = False,
    kinds: np.ndarray | None = None, kind_names: Sequence[tuple[str, str]] = (), note: str = "",
) -> Markup:  # fmt: skip
    """Return a figure of values (rows, columns), with a colour bar and the value at the pointer.

    Args:
        x, y: the axes; with labels, or with ``low`` and ``high`` of what the cells cover.
        label: name and unit of the values.
        kinds: int (rows, columns): -1 for a value, or an index of ``kind_names``.
        kind_names: what a cell without a value is, and its colour as ``#rrggbb``.
    """
    values = np.asarray(values, np.float64)
    kinds = np.full(values.shape, -1) if kinds is None else np.asarray(kinds)
    shown = np.where((kinds < 0) & ((values > 0) | (not log)), values, np.nan)
    colours = _limits(shown, log, label)
    pixels = np.zeros((4, *values.shape), np.uint8)
    known = np.isfinite(shown)
    at = colours.at(shown).clip(0, 1)[known]
    stops = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in VIRIDIS], np.float64)
    for channel in range(3):
        places = np.linspace(0, 1, len(stops))
        pixels[channel, known] = np.interp(at, places, stops[:, channel]).round()
    pixels[3, known] = 255
    present = []
    for index, (name, colour) in enumerate(kind_names):
        if (cells := kinds == index).any():
            rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            pixels[:, cells] = np.array([*rgb, 255], np.uint8)[:, None]
            present.append((name, colour))
    names = [name for name, _ in kind_names]
    return _figure(
        title, pixels, values, x, y, note=note, kinds=kinds, names=names, present=present,
        colours=colours,
    )  # fmt: skip


def confusion_matrix(
    title: str, counts: np.ndarray, names: Sequence[str], *, note: str = ""
) -> Markup:
    """Return a figure of counts (true class, predicted class); what is right and wrong has a hue.

    The opacity is the fraction of the true class, with a square root so that few mistakes show.
    """
    counts = np.asarray(counts)
    total = counts.sum(1, keepdims=True)
    fractions = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    right = np.eye(len(counts), dtype=bool)
    most = fractions[~right].max(initial=0) or 1.0
    opacity = np.where(right, fractions, 0.9 * np.sqrt(fractions / most))
    colour = np.where(right[..., None], RIGHT, WRONG)
    pixels = np.dstack([colour, (255 * opacity).round()]).astype(np.uint8).transpose(2, 0, 1)
    axes = Axis("predicted class", labels=names), Axis("true class", labels=names)
    written: list[Cell] = []
    if 0 < len(names) <= MAX_WRITTEN:
        middles = [round(100 * (i + 0.5) / len(names), 2) for i in range(len(names))]
        for (row, column), count in np.ndenumerate(counts):
            kind = "strong" if opacity[row, column] > STRONG else "" if count else "zero"
            written.append((middles[column], middles[row], f"{int(count)}", kind))
    present = [("right", "rgb(0 114 178)"), ("wrong", "rgb(213 94 0)")]
    return _figure(title, pixels, counts, *axes, note=note, present=present, written=written)


def _figure(
    title: str, pixels: np.ndarray, values: np.ndarray, x: Axis, y: Axis, *, note: str,
    kinds: np.ndarray | None = None, names: Sequence[str] = (),
    present: Sequence[tuple[str, str]] = (), written: Sequence[Cell] = (),
    colours: Scale | None = None,
) -> Markup:  # fmt: skip
    rows, columns = values.shape
    across, down = (
        scale(axis, [np.array([0.0, n])], padded=False) for axis, n in ((x, columns), (y, rows))
    )
    square = colours is None
    height = min(max(120, ROW_HEIGHT * rows), MAX_HEIGHT)
    x_ticks = across.ticks(LABELS_ACROSS if x.labels else 6)
    y_ticks = down.ticks(24 if square else height // ROW_HEIGHT)
    turned = bool(x.labels) and sum(len(tick.text) for tick in x_ticks) > LETTERS_ACROSS
    bar = [] if colours is None else colours.ticks(4)
    return draw(
        "heat_map", title=title, note=note, height=height, square=square, image=data_uri(pixels),
        x=x.label, y=y.label, x_ticks=x_ticks,
        y_ticks=[(round(100 * tick.at, 2), tick.text) for tick in y_ticks], turned=turned,
        written=written, needed=_pixels(written, columns), present=present, bar=bar,
        label=colours.axis.label if colours else "",
        ramp=", ".join(f"#{colour}" for colour in VIRIDIS),
        summary=f"{title}: {y.label} by {x.label}",
        data=_data(values, kinds, names, across, down, colours),
    )  # fmt: skip


def _pixels(written: Sequence[Cell], columns: int) -> int:
    """Return the width of the area, from which on the counts do not overlap."""
    longest = max((len(text) for _, _, text, _ in written), default=0)
    return next((w for w in WIDTHS if w >= columns * (DIGIT * longest + GAP)), WIDTHS[-1])


def _limits(values: np.ndarray, log: bool, label: str) -> Scale:
    """Return the scale of colours without a few outliers, which would compress it."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, [0.5, 99.5]) if len(known) else (0.1, 1.0)
    if log and high / low < 1.6:
        low, high = low / 1.8, high * 1.8
    elif not log and high <= low:
        low, high = low - 0.5, high + 0.5
    return Scale(Axis(label, log=log), float(low), float(high))


def _data(
    values: np.ndarray, kinds: np.ndarray | None, names: Sequence[str], across: Scale, down: Scale,
    colours: Scale | None,
) -> str:  # fmt: skip
    """Return what the script needs to show a cell at the pointer, as JSON."""
    cells: list[list[object]] = []
    if values.size <= MAX_HOVERED:
        cells = [[_cell(v) for v in row] for row in values.tolist()]
        for row, column in np.argwhere(kinds >= 0).tolist() if kinds is not None else ():
            assert kinds is not None
            cells[row][column] = names[kinds[row, column]]
    axes = [
        [each.axis.label, each.low, each.high, list(each.axis.labels)] for each in (across, down)
    ]
    label = colours.axis.label if colours else ""
    return json.dumps([axes, label, list(values.shape), cells], separators=(",", ":"))


def _cell(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.4g}")
