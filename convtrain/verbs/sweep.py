"""Show the table of a sweep, finished or not.

Example: python -m convtrain sweep logs/sweeps/SWEEP
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="the sweep's directory")


def run(arguments: argparse.Namespace) -> int:
    from convtrain.sweeps.table import show_sweep

    show_sweep(Path(arguments.folder))
    return 0
