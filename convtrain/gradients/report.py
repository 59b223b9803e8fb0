"""The terminal report of a run's gradients: the diagnosis, a table of norms, and two charts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from convtrain.gradients.abbreviate import abbreviate
from convtrain.gradients.charts import draw_flow, draw_heatmap, write_chart
from convtrain.gradients.diagnosis.offline import diagnose_tables
from convtrain.gradients.reading import Norms, gather_norms, load_steps, skipped_steps
from convtrain.gradients.record.store import load
from convtrain.text import as_mathtext, format_scientific

MAX_STEP_COLUMNS = 8
CELL_WIDTH = 7  # characters of 1.2e-38, the longest norm
GAP = 2
MIN_NAME_WIDTH, PREFERRED_NAME_WIDTH = 12, 24
HIGH = ((100.0, "bold red"), (10.0, "yellow"))
LOW = ((100.0, "bold blue"), (10.0, "cyan"))
"""Styles of norms by their factor above, or below, the usual norm."""
NONFINITE_STYLE = "bold red"


def show_report(
    console: Console, run: Path, *, globs: Sequence[str] = (), layers: bool = False, out: Path
) -> None:
    """Print a run's diagnosis and norms, and draw ``heatmap.png`` and ``flow.png`` in ``out``.

    ``layers`` prints a row for each layer, not each parameter; the charts always show layers.
    """
    parameters, steps = load(run), load_steps(run)
    norms = gather_norms(parameters, skipped_steps(steps)).matching(globs)
    layer_norms = norms.by_layer()
    console.print(f"run  {run}")
    if steps.num_rows:
        for line in diagnose_tables(steps, parameters):
            console.print(line)
    else:
        console.print("The table of steps is missing or cannot be read.")
    console.print()
    console.print(norm_table(layer_norms if layers else norms, console.width))
    if console.color_system:
        console.print(_legend())
    console.print()
    for name, figure in (
        ("heatmap", draw_heatmap(layer_norms)),
        ("flow", draw_flow(layer_norms)),
    ):
        figure.suptitle(as_mathtext(run.resolve().name), fontsize=11)
        path = write_chart(figure, out / f"{name}.png")
        console.print(f"{name:8}  {path}")


def norm_table(norms: Norms, width: int) -> Table:
    """Return a table of norms, a row for each name, that fits ``width`` characters."""
    rows = np.flatnonzero(~norms.skipped)
    nonfinite, finite = norms.nonfinite[rows].sum(0), np.asarray(norms.finite[rows].any(0))
    cell = GAP + max(CELL_WIDTH, len(str(norms.steps[-1])))
    fixed = (2 + bool(nonfinite.any())) * (GAP + CELL_WIDTH)
    rooms = [max(width - fixed - count * cell, MIN_NAME_WIDTH) for count in (4, 3, 2, 1)]
    longest = max(map(len, norms.names))
    widths = [min(longest, room) for room in rooms if room >= PREFERRED_NAME_WIDTH]
    for room in widths or rooms[-1:]:
        names = abbreviate(norms.names, room)
        if len(set(names)) == len(norms.names):
            break
    columns = min(MAX_STEP_COLUMNS, max(1, (width - fixed - room) // cell), len(rows))
    chosen = rows[np.linspace(len(rows) - 1, 0, columns).round().astype(int)[::-1]]
    medians, maxima = np.array([*norms.medians().values()]), norms.over_steps(np.max)
    typical = float(np.median(medians[finite])) if finite.any() else np.nan
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("step", no_wrap=True)
    titles = [*map(str, norms.steps[chosen]), "median", "max"]
    for title in [*titles, "NaN/inf"] if nonfinite.any() else titles:
        table.add_column(title, justify="right", no_wrap=True)
    for column, name in enumerate(names):
        values, present = (of[chosen, column].tolist() for of in (norms.values, norms.present))
        values += [medians[column], maxima[column]]
        present += [finite[column], finite[column]]
        usual = [medians[column]] * len(values)
        usual[-2] = typical
        cells = list(map(_cell, values, present, usual))
        if nonfinite.any():
            style = NONFINITE_STYLE if nonfinite[column] else ""
            cells.append(Text(str(nonfinite[column]), style))
        table.add_row(Text(name), *cells)
    return table


def _cell(value: float, present: bool, usual: float) -> Text:
    return Text(format_scientific(value), _style(value, usual)) if present else Text("-", "dim")


def _style(value: float, usual: float) -> str:
    if not np.isfinite(value):
        return NONFINITE_STYLE
    above = [style for factor, style in HIGH if value >= factor * usual and value > 0]
    below = [style for factor, style in LOW if value * factor <= usual and usual > 0]
    return next(iter(above + below), "")


def _legend() -> Text:
    parts = [("against the row's median, and a median against all:  ", "dim")]
    parts += [(f">= {factor:g} times  ", style) for factor, style in HIGH[::-1]]
    parts += [(f"<= 1/{factor:g}  ", style) for factor, style in LOW[::-1]]
    return Text.assemble(*parts)
