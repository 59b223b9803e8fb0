"""A command as somebody types it, up to the moment in which its training would begin."""

import sys
from collections.abc import Sequence

from convtrain.command.configure import Configured, configure
from convtrain.errors import ConvtrainError
from convtrain.process.output import print_error


def check(arguments: Sequence[str]) -> Configured:
    """Check a command as train.py does: print its mistakes, and exit with their status."""
    try:
        return configure(arguments)
    except ConvtrainError as error:
        print_error(error)
        sys.exit(error.exit_status)
