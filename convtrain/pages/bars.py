"""Bars with a name and a value: one below the other, or as parts of a whole."""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from convtrain.pages.page import draw
from convtrain.pages.scales import Axis, plain


def bars(title: str, rows: Sequence[tuple[str, float]], axis: Axis, *, note: str = "") -> Markup:
    """Return a figure of horizontal bars from 0 to ``axis.high``, or to the largest value."""
    largest = axis.high or max((value for _, value in rows), default=1.0) or 1.0
    drawn = [
        (name, round(100 * min(max(value / largest, 0), 1), 2) if value == value else 0,
         f"{value:.2%}" if axis.percent else plain(value))
        for name, value in rows
    ]  # fmt: skip
    return draw("bars", title=title, note=note, rows=drawn, label=axis.label)


def stacked(
    title: str, parts: Sequence[tuple[str, float]], shown: Callable[[float], str], *, note: str = ""
) -> Markup:
    """Return a figure of the parts of a whole side by side; ``shown`` formats a part's value."""
    whole = sum(value for _, value in parts) or 1.0
    drawn = [
        (name, round(100 * value / whole, 2), shown(value), f"{value / whole:.0%}")
        for name, value in parts
    ]
    return draw("stacked", title=title, note=note, parts=drawn)
