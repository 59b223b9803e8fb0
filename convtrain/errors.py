"""The errors that convtrain raises on purpose, and functions that write their messages.

A message is one line: the key, its value, what is allowed, and what to type next.
"""

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path

LONGEST_WORD = 100  # characters; the time to compare spellings grows with its square


class ConvtrainError(Exception):
    """An error that the user can correct; printed as one line, without a traceback."""

    exit_status = 1


class ConfigError(ConvtrainError, ValueError):
    """The configuration is wrong; the message has one line for each mistake."""

    exit_status = 2

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(one_line(text) for text in lines)
        super().__init__("\n".join(self.lines))


class NetworkError(ConfigError):
    """A declared network cannot be built; the message names the layer's path."""


class MissingDataError(ConfigError):
    """A file or folder that the configuration or the command names does not exist."""


class OccupiedError(ConfigError):
    """The directory belongs to another run or process; nothing was written there."""


class CorruptDataError(ConvtrainError):
    """A file of a dataset or of a run exists, but cannot be read."""


class TrainingError(ConvtrainError):
    """The training has failed."""


def one_line(text: str) -> str:
    """Replace line breaks by blanks, and escape other unprintable characters."""
    text = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def message_lines(error: BaseException) -> list[str]:
    """Return the lines of an error's message that are not empty, or else the name of its class."""
    lines = (line.strip() for line in str(error).splitlines())
    return [line for line in lines if line] or [type(error).__name__]


def first_line(error: BaseException) -> str:
    """Return the first of ``message_lines``."""
    return message_lines(error)[0]


def few(names: Iterable[str], most: int = 10) -> str:
    """Join the first names of a list, and count the others."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def error_line(error: BaseException) -> str:
    """Return an error's class, its first line, and the innermost line outside of libraries."""
    if isinstance(error.__context__, KeyboardInterrupt):  # Lightning raises SystemExit instead
        error = error.__context__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    at = (own or frames)[-1] if frames else None
    kind, line = type(error).__name__, first_line(error)
    said = kind if line == kind else f"{kind}: {line}"
    return f"{said} ({Path(at.filename).name}, line {at.lineno})" if at else said


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the closest known name, or an empty string."""
    near = closest(wrong, known)
    return "" if near is None else f"; did you mean {near}?"


def closest(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known name with the closest spelling, or None if none is close."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wrong.lower()[:LONGEST_WORD], by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None
