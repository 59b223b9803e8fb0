"""End a sweep's processes when its command ends, even by SIGKILL.

SIGKILL ends only the command: joblib's workers then wait for work that never comes, and submitit's
jobs survive by design. So a watcher process waits on a pipe, which the kernel closes when the
command ends. The watcher runs this file as a script, so it imports only the standard library.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

MARK = "CONVTRAIN_COMMAND"  # the environment variable that every process of a command inherits
GRACE_SECONDS = 6.0  # time for the jobs to save
POLL_SECONDS = 0.1

_watching: "list[subprocess.Popen[bytes]]" = []  # holds the pipe open while this process lives


def end_with_command(stop_file: Path) -> None:
    """On Linux, end all processes started from now on when this one ends; jobs may save first."""
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
    """Return the ids of the processes that have the mark in their environment."""
    found, text = [], f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def end_leftovers(mark: str, stop_file: Path) -> None:
    """Ask the marked processes to save; kill those that run longer than ``GRACE_SECONDS``."""
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
