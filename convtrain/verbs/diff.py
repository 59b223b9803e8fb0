"""Compare two runs side by side: configuration, versions, metrics and gradient norms.

Example: python -m convtrain diff logs/runs/lenet/RUN_A logs/runs/lenet/RUN_B
"""

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from convtrain.run.directory import Run
from convtrain.text import format_scientific, make_console

if TYPE_CHECKING:
    from convtrain.use.compare import Row

ABSENT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="RUN_A", help="a run's directory")
    parser.add_argument("second", metavar="RUN_B", help="another run's directory")


def run(arguments: argparse.Namespace) -> int:
    from convtrain.use import compare

    runs = Run(arguments.first), Run(arguments.second)
    for each in runs:
        each.require()
    console = make_console()
    for letter, each in zip("AB", runs, strict=True):
        console.print(f"{letter}  {each.path}")
    console.print()
    for title, rows in (
        ("config", compare.config_rows(*runs)),
        ("versions and machine", compare.provenance_rows(*runs)),
    ):
        different = [row for row in rows if not row.is_equal]
        console.print(_table(title, different, _text) if different else f"{title}: the same")
        console.print()
    metrics = compare.metric_rows(*(each.read_result() or {} for each in runs))
    console.print(_table("metrics", metrics, _text, ("B - A", _difference)))
    console.print()
    norms = list(compare.norm_rows(*runs))
    if all(any(row.values[index] is not None for row in norms) for index in range(2)):
        console.print(_table("median gradient norm", norms, format_scientific, ("B / A", _ratio)))
    else:
        console.print("gradients: not recorded by both")
    return 0


def _table(
    title: str,
    rows: "Iterable[Row]",
    shown: Callable[..., str],
    change: "tuple[str, Callable[..., str]] | None" = None,
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(title, overflow="fold")
    for letter in "AB":
        table.add_column(letter, justify="right" if change else "left", overflow="fold")
    if change:
        table.add_column(change[0], justify="right")
    for row in rows:
        cells = [ABSENT if value is None else shown(value) for value in row.values]
        if change and ABSENT in cells:
            cells.append(ABSENT)
        elif change:
            cells.append("same" if row.is_equal else change[1](*row.values))
        table.add_row(row.key, *cells)
    return table


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _difference(first: float, second: float) -> str:
    return f"{second - first:+.3g}"


def _ratio(first: float, second: float) -> str:
    return f"{second / first:.3g}" if first else ABSENT
