"""End the processes of a sweep with its command, however the command ends.

SIGKILL ends the command alone: joblib's workers then wait for work that never comes, and submitit's
jobs are made to survive. So a watcher process waits on a pipe, which the kernel closes when the
command ends. This file is also the watcher's script, and imports the standard library alone.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

MARK = "CONVTRAIN_COMMAND"  # the environment variable that every process of a command inherits
GRACE_SECONDS = 6.0  # in which jobs may save
POLL_SECONDS = 0.1

_watching: "list[subprocess.Popen[bytes]]" = []  # holds the pipe open as long as this process lives


def end_with_command(stop_file: Path) -> None:
    """End every process that this one starts from now on when this one ends, on Linux.

    Args:
        stop_file: asks the jobs to save, as a signal to the command does.
    """
    if sys.platform != "linux" or _watching:
        return
    mark = uuid.uuid4().hex
    command = [sys.executable, "-I", "-S", __file__, mark, str(stop_file.absolute())]
    watcher = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        start_new_session=True,
    )
    _watching.append(watcher)
    os.environ[MARK] = mark


def processes_with(mark: str) -> list[int]:
    """Return the processes that have the mark in their environment."""
    found, text = [], f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found


def end_leftovers(mark: str, stop_file: Path) -> None:
    """Ask the processes with a mark to save, and kill those that have not ended in time."""
    if processes_with(mark) and not stop_file.exists():
        stop_file.write_text(f"{int(signal.SIGTERM)}\n")
    deadline = time.monotonic() + GRACE_SECONDS
    while left := processes_with(mark):
        for pid in left if time.monotonic() > deadline else ():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_leftovers(sys.argv[1], Path(sys.argv[2]))
