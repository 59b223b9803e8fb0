"""A run's gradients in the terminal: a few lines on the whole, and a table of norms."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from convtrain.errors import MissingDataError
from convtrain.gradients.abbreviate import narrowest
from convtrain.gradients.charts import draw_flow, draw_heatmap, write_chart
from convtrain.gradients.reading import Norms, by_layer, gather_norms, select_rows
from convtrain.gradients.record.store import load
from convtrain.text import as_mathtext

MOST_STEPS = 8  # columns of steps; beyond, names are told in full instead
CELL = 7  # characters of 1.2e-38, the longest norm
GAP = 2
FAR, FURTHER = 10.0, 100.0
STYLES = ((FURTHER, "bold red"), (FAR, "yellow"))
LOW_STYLES = ((FURTHER, "bold blue"), (FAR, "cyan"))
BROKEN = "bold red"


def show_report(
    console: Console, run: Path, *, globs: Sequence[str] = (), layers: bool = False, out: Path
) -> None:
    """Print what a run's gradients were like, and draw ``heatmap.png`` and ``flow.png``.

    Args:
        globs: which parameters; all without any.
        layers: rows are layers rather than parameters. The pictures are always of layers.
        out: the folder of the pictures.

    Raises:
        ConfigError: there is no record, nothing matches a glob, or a picture cannot be written.
    """
    norms = gather_norms(select_rows(load(run), globs))
    overview = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    overview.add_row("run", Text(str(run), overflow="fold"))
    try:
        steps = load(run, "steps")
    except MissingDataError:
        steps = pa.table({"step": pa.array([], pa.int64())})
    for what, text in describe_steps(steps):
        overview.add_row(what, text)
    console.print(overview)
    console.print()
    applied = norms.without(steps["step"].to_numpy()[skipped_in(steps)])
    console.print(norm_table(by_layer(applied) if layers else applied, console.width))
    if console.color_system:
        console.print(_legend())
    console.print()
    for name, figure in (
        ("heatmap", draw_heatmap(by_layer(norms))),
        ("flow", draw_flow(by_layer(applied))),
    ):
        figure.suptitle(as_mathtext(run.resolve().name), fontsize=11)
        path = write_chart(figure, out / f"{name}.png")
        console.print(f"{name:8}  {path}")


def describe_steps(steps: pa.Table) -> Iterator[tuple[str, str | Text]]:
    """Say in a few pairs of words and text what the record's table of steps holds."""
    step, skipped = steps["step"].to_numpy(), skipped_in(steps)
    if not len(step):
        yield "steps", "their table is missing or cannot be read"
        return
    yield "steps", f"{len(step):,} recorded, {step[0]:,} to {step[-1]:,}"
    if "norm" in steps.column_names and not skipped.all():
        yield "total norm", _total(step[~skipped], steps["norm"].to_numpy()[~skipped])
    if "skipped" in steps.column_names:
        scaler = ", by the scaler of mixed precision" if skipped.any() else ""
        yield "skipped", f"{_steps(int(skipped.sum()))}{scaler}"
    if "nonfinite" in steps.column_names:
        broken = np.flatnonzero(pc.fill_null(steps["nonfinite"], 0).to_numpy())
        yield "NaN or inf", _broken(steps, broken, skipped)


def skipped_in(steps: pa.Table) -> np.ndarray:
    """Tell which rows are steps that the scaler of mixed precision skipped: bool (S,)."""
    if "skipped" not in steps.column_names:
        return np.zeros(steps.num_rows, bool)
    return np.asarray(pc.fill_null(steps["skipped"], False), bool)


def norm_table(norms: Norms, width: int) -> Table:
    """Return a table of norms, a row for each name, that fits ``width`` characters.

    The columns are some steps, spread evenly over the run, then the median and the maximum of all
    finite norms, then in how many steps the gradient was not finite, where any was.
    """
    broken = norms.nonfinite.sum(0)
    cell = GAP + max(CELL, len(str(norms.steps[-1])))
    fixed = (2 + bool(broken.any())) * (GAP + CELL)
    rooms = [max(width - fixed - count * cell, 12) for count in (4, 3, 2, 1)]
    wanted = max(map(len, norms.names))
    room, names = narrowest(norms.names, [min(wanted, r) for r in rooms if r >= 24] or rooms[-1:])
    chosen = _spread(len(norms.steps), min(MOST_STEPS, max(1, (width - fixed - room) // cell)))
    medians, maxima = norms.over_steps(np.median), norms.over_steps(np.max)
    typical = _median(medians)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("step", no_wrap=True)
    for index in chosen:
        table.add_column(str(norms.steps[index]), justify="right", no_wrap=True)
    for title in ("median", "max", *(["NaN/inf"] if broken.any() else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for place, name in enumerate(names):
        cells = [
            _cell(float(norms.values[i, place]), norms.present[i, place], medians[place])
            for i in chosen
        ]
        cells.append(_cell(medians[place], norms.finite[:, place].any(), typical))
        cells.append(_cell(maxima[place], norms.finite[:, place].any(), medians[place]))
        if broken.any():
            cells.append(Text(str(broken[place]), BROKEN) if broken[place] else Text("0"))
        table.add_row(Text(name), *cells)
    return table


def short(value: float) -> str:
    """Return a number to two digits in scientific notation, without padding: ``1.2e-3``."""
    if not np.isfinite(value):
        return "nan" if np.isnan(value) else "inf" if value > 0 else "-inf"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def _cell(value: float, present: np.bool_, usual: float) -> Text:
    if not present:
        return Text("-", "dim")
    return Text(short(value), _style(value, usual))


def _style(value: float, usual: float) -> str:
    if not np.isfinite(value):
        return BROKEN
    if not np.isfinite(usual):
        return ""
    above = (style for factor, style in STYLES if value >= factor * usual and value > 0)
    below = (style for factor, style in LOW_STYLES if value * factor <= usual and usual > 0)
    return next(above, "") or next(below, "")


def _legend() -> Text:
    parts = [("against the row's median, and a median against all:  ", "dim")]
    parts += [(f">= {factor:g} times  ", style) for factor, style in STYLES[::-1]]
    parts += [(f"<= 1/{factor:g}  ", style) for factor, style in LOW_STYLES[::-1]]
    return Text.assemble(*parts)


def _total(step: np.ndarray, norm: np.ndarray) -> Text:
    first, last = ((f"{value:.3g}", _style(value, np.nan)) for value in (norm[0], norm[-1]))
    text = Text.assemble(first, " at first, ", last, " at last")
    if (finite := np.isfinite(norm)).any():
        largest = int(np.argmax(np.where(finite, norm, -1)))
        text.append(f"; median {_median(norm):.3g}, ")
        text.append(f"largest {norm[largest]:.3g} in step {step[largest]:,}")
    return text


def _broken(steps: pa.Table, broken: np.ndarray, skipped: np.ndarray) -> Text:
    if not len(broken):
        return Text(_steps(0))
    first = int(broken[0])
    name = (
        steps["first_nonfinite"][first].as_py() if "first_nonfinite" in steps.column_names else ""
    )
    text = f"{_steps(len(broken))}, first in step {steps['step'][first].as_py():,}"
    text += f" in {name}" if name else ""
    also = int(skipped[broken].sum())
    text += f"; {also} of them skipped" if also else ""
    return Text(text, BROKEN if also < len(broken) else "")


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else np.nan


def _spread(count: int, most: int) -> list[int]:
    if most == 1:
        return [count - 1]
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _steps(count: int) -> str:
    return f"{count:,} step{'' if count == 1 else 's'}" if count else "none"
