"""Measure the whole table: ``python -m benchmarks``, or ``make bench``.

Each module has ``rows()``, which measures and returns its rows. ``--only`` selects modules.
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from benchmarks.paired import HEAD, Result, machine

MODULES = (
    "command", "mistakes", "processes", "epoch", "evaluation", "styles", "recorder",
    "average", "augmentation", "image_folder", "photographs", "predict",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MODULES, default=MODULES)
    parser.add_argument("--root", type=Path, help="folder with MNIST's files, for whole commands")
    chosen = parser.parse_args()
    print(f"{machine()}\n\n{HEAD}")
    for name in chosen.only:
        rows: Callable[..., list[Result]] = import_module(f"benchmarks.{name}").rows
        for result in rows(chosen.root) if name == "command" else rows():
            print(result.row(), flush=True)


if __name__ == "__main__":
    main()
