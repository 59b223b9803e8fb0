"""Report the recorded gradients of a run: a table, a diagnosis, and charts.

Example: python -m convtrain gradients logs/runs/lenet/RUN --parameters 'conv*' --layers
"""

import argparse
import sys
import warnings
from pathlib import Path

from convtrain.errors import ConfigError
from convtrain.text import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run's directory")
    parser.add_argument(
        "--parameters", metavar="GLOB", action="append", default=[],
        help="only parameters whose name matches, such as 'stem.*'; may be repeated",
    )  # fmt: skip
    parser.add_argument("--layers", action="store_true", help="one row per layer")
    parser.add_argument("--out", metavar="DIR", help="folder for the charts, if not RUN/gradients")
    parser.add_argument("--csv", metavar="FILE", help="only write a table; - for standard output")
    parser.add_argument(
        "--table", choices=("steps", "parameters", "layers", "histograms"),
        help="the table that --csv writes, if not parameters",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from convtrain.gradients.export import STDOUT, write_csv
    from convtrain.gradients.reading import require_run, select_rows
    from convtrain.gradients.record.store import FOLDER, load
    from convtrain.gradients.report import show_report

    csv, chosen = arguments.csv, arguments.table
    if chosen and not csv:
        raise ConfigError(f"--table {chosen}: only --csv writes a table; add --csv FILE")
    if csv and (arguments.layers or arguments.out):
        raise ConfigError(f"--csv {csv}: writes only a table; leave out --layers and --out")
    console = make_console()
    folder = require_run(arguments.run)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)  # of one library to another
        warnings.showwarning = _show_as_line
        if not csv:
            out = Path(arguments.out or folder / FOLDER)
            globs, layers = arguments.parameters, arguments.layers
            show_report(console, folder, globs=globs, layers=layers, out=out)
            return 0
        table = chosen or "parameters"
        rows = select_rows(load(folder, table), arguments.parameters)
        write_csv(rows, csv)
        if csv != STDOUT:
            console.print(f"{rows.num_rows:,} rows of {table} in {csv}")
    return 0


def _show_as_line(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
