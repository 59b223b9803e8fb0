"""Locks of run directories. The kernel releases a lock when the process that took it has ended.

Child processes that inherit the open file hold the lock as well.
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
except ImportError:  # Windows has no flock, so a second process is not refused there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("convtrain")

NAME = ".lock"
PATIENCE_SECONDS = 2.0  # a process that was killed takes a moment to end
_held: dict[Path, BinaryIO] = {}


@contextlib.contextmanager
def locked(folder: Path, *, waits: bool = False) -> Iterator[BinaryIO]:
    """Create and lock a directory while the block runs; with ``waits``, wait for another holder.

    Raises:
        OccupiedError: another process holds the lock; the message names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+b") as file:
        if not take(file):
            _wait(file, folder, waits)
        file.truncate(0)
        file.write(json.dumps(_this_process()).encode() + b"\n")
        file.flush()
        _held[folder] = file
        try:
            yield file
        finally:
            del _held[folder]


def take(file: BinaryIO, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed; return False if another process holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning(
            "%s: the file system has no locks (%s), so no other process is kept out; do not start "
            "a second one here", file.name, error.strerror,
        )  # fmt: skip
    return True


def held(folder: Path) -> BinaryIO | None:
    """Return the open lock file of a directory that this process has locked, or None."""
    return _held.get(folder)


def holder(folder: Path) -> str | None:
    """Return a description of the process that has locked a directory, or None."""
    try:
        with (folder / NAME).open("rb") as file:
            return None if take(file, shared=True) else _described(file)
    except (OSError, ValueError):
        return None


def entered_at(folder: Path) -> float | None:
    """Return when a process last locked a directory, in seconds since 1970, or None."""
    try:
        return float(json.loads((folder / NAME).read_text())["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stays_locked(folder: Path) -> str | None:
    """Return the holder of a directory's lock if it keeps it for ``PATIENCE_SECONDS``, or None."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (who := holder(folder)) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    return who


def refusal(who: str) -> str:
    return f"{who} is at work there; wait until it has ended, or give another directory"


def _this_process() -> dict[str, str | int | float]:
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
    except (ValueError, KeyError, TypeError):  # it has not written the file yet, or is older
        return "another process"


def _wait(file: BinaryIO, folder: Path, waits: bool) -> None:
    deadline, warned = time.monotonic() + PATIENCE_SECONDS, False
    while not take(file):
        if not warned and time.monotonic() > deadline:
            who, warned = _described(file), True
            if not waits:
                raise OccupiedError(f"{folder}: {refusal(who)}")
            log.warning("%s: %s is at work there; waiting", folder, who)
        time.sleep(0.1)
