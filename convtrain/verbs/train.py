"""Train a network: the same as python train.py.

Example: python -m convtrain train model=functional optimizer.lr=0.05
"""

import argparse
import runpy
import sys

from convtrain.run.commands import HOME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(overrides=[])
    parser.format_help = _help  # type: ignore[method-assign]


def _help() -> str:
    from convtrain.command.help import help_text

    return help_text()


def run(arguments: argparse.Namespace) -> int:
    sys.argv[1:] = arguments.overrides
    runpy.run_path(str(HOME / "train.py"), run_name="__main__")
    return 0
