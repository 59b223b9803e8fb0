"""Draw lines, dots, means and columns over two axes, as HTML around an inline SVG.

The texts are HTML, and only the lines are stretched to the width of the page, so that a plot is
readable at every width. Colours are variables of the style sheet.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from markupsafe import Markup

from convtrain.pages.page import draw
from convtrain.pages.scales import Axis, Scale, plain, scale

COLOURS = 7
PATTERNS = ("", "dashed", "dotted")
"""The next seven series have the same colours, and another pattern."""
MAX_POINTS = 400  # of a series
MAX_MARKED = 24  # points of a line, each of which has a dot
ROW_HEIGHT, MAX_HEIGHT = 16, 560  # pixels, of the labels down an axis
LABELS_ACROSS = 14
LETTERS_ACROSS = 30  # in all labels of an axis; more of them are turned

Kind = Literal["line", "dots", "marked", "means", "bars"]


@dataclass(frozen=True)
class Series:
    """Values over two axes.

    Attributes:
        name: shown in the legend and at the pointer; a series without a name is in neither.
        x, y: numbers, or positions of an axis with labels; NaN or None is a gap.
        kind: ``marked`` is a line with dots, ``means`` are short bars, ``bars`` are columns from 0.
        colour: 0 for grey; 1 to 7; from 8 on the same again with another pattern. By position if
            None.
        dashed: such as for a reference.
        faint: such as for raw values beneath smoothed ones.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    kind: Kind = "line"
    colour: int | None = None
    dashed: bool = False
    faint: bool = False


Place = tuple[float, float]


class Drawn(NamedTuple):
    """A series as the template draws it; positions are percents from the left and the top."""

    name: str
    kind: Kind
    classes: str
    paths: list[str]
    dots: list[Place]
    bars: list[tuple[float, float, float, float]]
    last: str


def plot(
    title: str, series: Sequence[Series], x: Axis, y: Axis, *,
    note: str = "", height: int = 220, square: bool = False,
) -> Markup:  # fmt: skip
    """Return a figure with axes, a legend, and the values at the pointer.

    An axis ``y`` with labels has its rows from the top. ``height`` is in pixels, and grows with
    these labels. ``square`` is as high as it is wide.
    """
    points = [_thinned(each) for each in series]
    has_bars = any(each.kind == "bars" for each in series)
    across = scale(x, [px for px, _ in points], padded=any(s.kind != "line" for s in series))
    values = [py for _, py in points] + ([np.zeros(1)] if has_bars and not y.log else [])
    up = scale(y, values, padded=True)
    rows = bool(y.labels)
    if rows:
        height = min(max(height, ROW_HEIGHT * len(y.labels)), MAX_HEIGHT)
    drawn = [
        _drawn(each, index, *pair, across, up)
        for index, (each, pair) in enumerate(zip(series, points, strict=True))
    ]
    across_ticks = across.ticks(LABELS_ACROSS if x.labels else 5)
    turned = bool(x.labels) and sum(len(tick.text) for tick in across_ticks) > LETTERS_ACROSS
    ends = [f"{each.name} {each.last}".strip() for each in drawn if each.name]
    return draw(
        "plot", title=title, note=note, height=height, square=square, series=drawn, x=x.label,
        y=y.label, x_ticks=across_ticks, y_ticks=_from_top(up, height, rows), turned=turned,
        rows=rows, summary=f"{title}: {y.label} over {x.label}. {', '.join(ends)}",
        data=_data(series, points, across, up),
    )  # fmt: skip


def colour_of(number: int) -> str:
    """Return the class of a colour in the style sheet."""
    return f"s{(number - 1) % COLOURS + 1 if number else 0}"


def pattern_of(number: int) -> str:
    """Return the class of a pattern; none for the first seven colours."""
    return PATTERNS[max(number - 1, 0) // COLOURS % len(PATTERNS)]


def _from_top(up: Scale, height: int, rows: bool) -> list[tuple[float, str]]:
    ticks = up.ticks(height // ROW_HEIGHT if rows else 5)
    return [(round(100 * (at if rows else 1 - at), 2), text) for at, text in ticks]


def _thinned(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y as float64; of many points the least and the largest of each bin."""
    x, y = (np.array(values, np.float64) for values in (series.x, series.y))
    if len(y) <= MAX_POINTS:
        return x, y
    edges = np.linspace(0, len(y), MAX_POINTS // 2 + 1).astype(int)
    kept = {0, len(y) - 1}
    for first, last in pairwise(edges.tolist()):
        piece = y[first:last]
        if (gaps := np.flatnonzero(np.isnan(piece))).size:
            kept.add(first + int(gaps[0]))
        if gaps.size < len(piece):
            kept |= {int(first + np.nanargmin(piece)), int(first + np.nanargmax(piece))}
    order = sorted(kept)
    return x[order], y[order]


def _drawn(
    series: Series, index: int, x: np.ndarray, y: np.ndarray, across: Scale, up: Scale
) -> Drawn:
    left = across.at(x).clip(0, 1)
    top = up.at(y).clip(0, 1)
    top = top if up.axis.labels else 1 - top
    known = np.isfinite(left) & np.isfinite(top)
    number = index + 1 if series.colour is None else series.colour
    pattern = "dashed" if series.dashed else pattern_of(number)
    classes = " ".join(filter(None, (colour_of(number), pattern, "faint" if series.faint else "")))
    kind = series.kind
    if kind == "line" and known.sum() <= MAX_MARKED and not (pattern or series.faint):
        kind = "marked"
    is_line = kind in ("line", "marked")
    places = [
        (round(100 * a, 2), round(100 * b, 2)) for a, b in zip(left[known], top[known], strict=True)
    ]
    paths = [_path(left, top, known)] if is_line and known.any() else []
    dots = places if kind in ("dots", "marked", "means") else []
    bars = _bars(places, up) if kind == "bars" else []
    return Drawn(series.name, kind, classes, paths, dots, bars, _last(series, y, up.axis))


def _bars(places: list[Place], up: Scale) -> list[tuple[float, float, float, float]]:
    """Return left, top, width and height of a column below, or above, each place."""
    floor = 100.0 if up.axis.log else float(100 * (1 - up.at(0.0)))
    apart = np.diff(np.unique([left for left, _ in places]))
    width = round(0.9 * (apart.min() if apart.size else 10.0), 2)
    return [
        (round(left - width / 2, 2), min(top, floor), width, round(abs(floor - top), 2))
        for left, top in places
    ]


def _last(series: Series, y: np.ndarray, axis: Axis) -> str:
    """Return a line's last value for the legend."""
    finite = y[np.isfinite(y)]
    is_line = series.kind in ("line", "marked") and not series.dashed
    if not is_line or axis.labels or not len(finite):
        return ""
    return f"{finite[-1]:.2%}" if axis.percent else plain(float(finite[-1]))


def _path(left: np.ndarray, top: np.ndarray, known: np.ndarray) -> str:
    """Return SVG commands in thousandths of the area, with a new line after each gap."""
    parts, pen = [], "M"
    for a, b, here in zip(left, top, known, strict=True):
        if here:
            parts.append(f"{pen}{1000 * a:.5g} {1000 * b:.5g}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts) + ("h0" if len(parts) == 1 else "")


def _data(
    series: Sequence[Series],
    points: Iterable[tuple[np.ndarray, np.ndarray]],
    across: Scale,
    up: Scale,
) -> str:
    """Return what the script needs to show values at the pointer, as JSON."""
    axes = [
        [each.low, each.high, int(each.axis.log), int(each.axis.percent), list(each.axis.labels)]
        for each in (across, up)
    ]
    shown = [
        [each.name, each.kind in ("line", "marked"), _numbers(x), _numbers(y)]
        for each, (x, y) in zip(series, points, strict=True)
        if each.name
    ]
    return json.dumps([axes, shown], separators=(",", ":"))


def _numbers(values: np.ndarray) -> list[float | int | None]:
    """Return numbers of six digits for JSON, which has no NaN."""
    return [
        None if not math.isfinite(v) else int(v) if v.is_integer() else float(f"{v:.6g}")
        for v in values.tolist()
    ]
