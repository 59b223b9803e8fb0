"""Put the curves and tables of several runs on one page.

RUN is a directory of a run, finished or not, or one that holds runs, such as a sweep's.

Example: python -m convtrain compare logs/runs/lenet/RUN_A logs/runs/lenet/RUN_B --out compare.html
"""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from convtrain import program
from convtrain.errors import ConfigError
from convtrain.text import make_console

if TYPE_CHECKING:
    from convtrain.use.comparison import Compared

SHOWN = ("val/acc", "val/loss", "test/acc", "steps", "wall_time_seconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a directory of a run or of runs")
    parser.add_argument(
        "--out", metavar="FILE",
        help="the page, if not compare.html in the folder that holds the runs, or here",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from convtrain.use.comparison import (
        compare,
        default_file,
        find_runs,
        tested_note,
        write_comparison,
    )

    runs = find_runs([Path(path) for path in arguments.runs])
    out = Path(arguments.out) if arguments.out else default_file(runs)
    if out.is_dir():
        raise ConfigError(
            f"--out {out}: is a directory; give a file such as {out / 'compare.html'}"
        )
    compared = compare(runs)
    typed = [*arguments.runs, *(["--out", arguments.out] if arguments.out else [])]
    write_comparison(compared, out, shlex.join([*program.verb_words("compare"), *typed]))
    console = make_console()
    console.print(_table(compared))
    if note := tested_note(compared):
        console.print(note)
    console.print(f"the page  {program.relative(out)}")
    return 0


def _table(compared: "list[Compared]") -> Table:
    from convtrain.use.comparison import shown

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for key in SHOWN:
        table.add_column("time" if key == "wall_time_seconds" else key, justify="right")
    for each in compared:
        numbers = (shown(key, each.numbers.get(key)) for key in SHOWN)
        table.add_row(each.label, each.status, *numbers)
    return table
