"""List the choices of every group, or of one: what each is, and what it reached.

Your own, in ./configs, are listed with their files.

Example: python -m convtrain list network
"""

import argparse

from convtrain.errors import ConfigError, did_you_mean
from convtrain.text import make_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("group", metavar="GROUP", nargs="?", help="the group, such as network")


def run(arguments: argparse.Namespace) -> int:
    from convtrain.command.choices import find_choices, shown_path, summary
    from convtrain.command.command_line import CommandLine
    from convtrain.run.commands import CONFIGS

    found = find_choices(CommandLine.parse([]).folders)
    groups = {group: files for group, files in found.items() if files}
    chosen = arguments.group
    if chosen and chosen not in groups:
        near = did_you_mean(chosen, groups) or f"; choose from {', '.join(groups)}"
        raise ConfigError(f"{chosen}: no such group{near}")
    console = make_console()
    for group in [chosen] if chosen else groups:
        width = max(map(len, groups[group]))
        console.print(group)
        for name, file in groups[group].items():
            own = "" if file.is_relative_to(CONFIGS) else f" [{shown_path(file)}]"
            console.print(f"  {name:{width}}  {summary(file)}{own}".rstrip())
    return 0
