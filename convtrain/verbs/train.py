"""Train a network, or several with -m.

Example: python -m convtrain train model=functional optimizer.lr=0.05
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(overrides=[])
    parser.format_help = _help  # type: ignore[method-assign]


def _help() -> str:
    from convtrain.command.command_line import CommandLine
    from convtrain.command.help import help_text

    return help_text(CommandLine.parse([]).folders)


def run(arguments: argparse.Namespace) -> int:
    from convtrain.launch.command import run_command

    run_command(arguments.overrides)
    return 0
