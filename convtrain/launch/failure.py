"""Why a training has ended: a line for the terminal, a traceback for the log, an exit status."""

import time
from pathlib import Path
from traceback import format_exception
from typing import NamedTuple

from convtrain.errors import ConvtrainError, error_line
from convtrain.process.atomic import line_on_full_disk


class Failure(NamedTuple):
    """Why a training, or one of its ranks, has ended.

    Attributes:
        time: of the failure, in seconds since 1970; the earliest failure is the cause of the rest.
        line: for the terminal.
        traceback: empty for an error that a user can mend and that no exception has caused.
        status: exit status.
    """

    time: float
    line: str
    traceback: str
    status: int


def failure_of(error: Exception, run_dir: Path) -> Failure:
    """Return what to report of an exception that has ended a training."""
    if isinstance(error, ConvtrainError):
        cause = error.__cause__
        trace = "" if cause is None else "".join(format_exception(cause))
        return Failure(time.time(), str(error), trace, error.exit_status)
    line = line_on_full_disk(error, run_dir) or error_line(error)
    return Failure(time.time(), line, "".join(format_exception(error)), 1)
