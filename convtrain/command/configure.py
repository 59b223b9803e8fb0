"""From the arguments of a command to the configurations that it asks for, checked."""

from collections.abc import Sequence

from convtrain.command.check import Checked, check_command
from convtrain.command.command_line import CommandLine
from convtrain.command.resolvers import register_resolvers


def configure(arguments: Sequence[str], *other_options: str) -> Checked:
    """Compose and check everything that a command asks for, before anything runs.

    Args:
        arguments: options and overrides, as typed after ``python train.py``.
        other_options: options of the caller's own, of which one may be misspelt.

    Returns:
        The typed configurations: one for a run, one for each value of a sweep.

    Raises:
        ConfigError: one line for each mistake.
    """
    register_resolvers()
    return check_command(CommandLine.parse(arguments, *other_options))
