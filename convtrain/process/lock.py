"""One process at a time in a run's directory, for as long as it lives, however it ends.

Whoever writes a run (train, resume, rerun, a job of a sweep) holds its lock. The kernel releases
the lock when the process has died, and those that were handed the file.
"""

import contextlib
import datetime
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from convtrain.errors import OccupiedError

try:
    import fcntl
except ImportError:  # Windows has none, and no second process is kept out there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("convtrain")

NAME = ".lock"
PATIENCE_SECONDS = 2.0  # a process that was killed takes a moment to end
_held: dict[Path, BinaryIO] = {}  # by this process


@contextlib.contextmanager
def locked(folder: Path, *, waits: bool = False) -> Iterator[BinaryIO]:
    """Enter a directory alone.

    Args:
        folder: the directory, which is made if it does not exist.
        waits: until another process has left it.

    Raises:
        OccupiedError: another process is in it, which is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+b") as file:
        if not _take(file):
            _wait(file, folder, waits)
        file.truncate(0)
        file.write(json.dumps(_myself()).encode() + b"\n")
        file.flush()
        _held[folder] = file
        try:
            yield file
        finally:
            del _held[folder]


def held(folder: Path) -> BinaryIO | None:
    """Return the file that holds the lock of a directory, if this process has it."""
    return _held.get(folder)


def holder(folder: Path) -> str | None:
    """Return who is at work in a directory, as a message names it, or None where nobody is."""
    try:
        with (folder / NAME).open("rb") as file:
            return None if _take(file, shared=True) else _described(file)
    except (OSError, ValueError):
        return None


def is_locked(folder: Path) -> bool:
    """Tell whether a process is at work in a directory."""
    return holder(folder) is not None


def entered_at(folder: Path) -> float | None:
    """Return when a process came into a directory last, in seconds since 1970, if that is known."""
    try:
        return float(json.loads((folder / NAME).read_text())["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stays_locked(folder: Path) -> str | None:
    """Return who is at work in a directory and does not end within ``PATIENCE_SECONDS``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (who := holder(folder)) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    return who


def refusal(who: str) -> str:
    """Return what to tell whoever may not enter a directory."""
    return f"{who} is at work there; wait until it has ended, or give another directory"


def _myself() -> dict[str, str | int | float]:
    now = datetime.datetime.now().astimezone()
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": f"{now:%Y-%m-%d %H:%M:%S}",
        "time": now.timestamp(),
    }


def _described(file: BinaryIO) -> str:
    file.seek(0)
    try:
        found = json.loads(file.read())
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):  # it has only just come in, or is an older version
        return "another process"


def _take(file: BinaryIO, *, shared: bool = False) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks; nobody is kept out there
        log.warning(
            "%s: cannot be locked (%s), so take care that nobody else trains here",
            file.name,
            error.strerror,
        )
    return True


def _wait(file: BinaryIO, folder: Path, waits: bool) -> None:
    """Wait for the lock in short naps, so that a signal is answered."""
    deadline, told = time.monotonic() + PATIENCE_SECONDS, False
    while not _take(file):
        if not told and time.monotonic() > deadline:
            who, told = _described(file), True
            if not waits:
                raise OccupiedError(f"{folder}: {refusal(who)}")
            log.warning("%s: %s is at work there; waiting", folder, who)
        time.sleep(0.1)
