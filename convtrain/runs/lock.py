"""One process at a time in a run's directory, for as long as it lives, however it ends."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has none, and no second process is kept out there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("convtrain")

NAME = ".lock"
PATIENCE = 2.0  # seconds of waiting before it is told
_held: dict[Path, BinaryIO] = {}  # by this process


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[BinaryIO]:
    """Enter a directory alone; wait while another process is in it.

    The system gives the lock back when the process dies, and those that it has handed the file to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+b") as file:
        if not _take(file):
            _wait(file, folder)
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        _held[folder] = file
        try:
            yield file
        finally:
            del _held[folder]


def held(folder: Path) -> BinaryIO | None:
    """Return the file that holds the lock of a directory, if this process has it."""
    return _held.get(folder)


def is_locked(folder: Path) -> bool:
    """Tell whether a process is at work in a directory."""
    try:
        with (folder / NAME).open("rb") as file:
            return not _take(file, shared=True)
    except OSError:
        return False


def _take(file: BinaryIO, *, shared: bool = False) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(file: BinaryIO, folder: Path) -> None:
    """Wait, in short naps, so that a signal is answered."""
    began, told = time.monotonic(), False
    while not _take(file):
        if not told and time.monotonic() - began > PATIENCE:
            file.seek(0)
            log.warning("%s: process %s trains it; waiting", folder, file.read().decode().strip())
            told = True
        time.sleep(0.1)
