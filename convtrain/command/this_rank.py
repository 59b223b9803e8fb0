"""The command line with which a process that was started from outside joins the others."""

import os
import sys
from collections.abc import Sequence

from convtrain.command.command_line import CommandLine
from convtrain.errors import ConfigError, ConvtrainError
from convtrain.process.joining import join
from convtrain.process.ranks import settle_rank
from convtrain.process.stamp import STAMP


def command_of_this_rank(arguments: Sequence[str]) -> list[str]:
    """Return the command line with which this process joins the others in one run directory.

    Where they were started from outside, each composes the configuration by itself, and a new
    directory's name must be the same for all. Ranks other than 0 log to files of their own. Exits
    with one line where the processes cannot train together.
    """
    command = CommandLine.parse(arguments)
    if not command.trains:
        return list(arguments)
    try:
        here = settle_rank()
        if here.launcher is None:
            return list(arguments)
        if command.multirun:
            raise ConfigError(
                f"-m: a sweep starts its own processes; leave {here.launcher} out and set "
                f"trainer.devices={here.local_world_size}"
            )
        os.environ[STAMP] = join(here)
    except ConvtrainError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
    if here.rank == 0:
        return list(arguments)
    return [*arguments, f"hydra.job.name=train.rank{here.rank}", "hydra.output_subdir=null"]
