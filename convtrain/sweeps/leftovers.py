"""No process of a sweep outlives its command, however the command has ended.

joblib's workers wait for work that will not come, and submitit's jobs were made to survive. SIGKILL
ends the command alone, and no handler can answer it. So a process of its own waits for the end of
the command, which closes a pipe. This file is also the script that it runs, and imports nothing of
convtrain or of other packages.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

MARK = "CONVTRAIN_COMMAND"  # a variable that every process of a command inherits
GRACE = 6.0  # seconds that jobs have to save
PAUSE = 0.1  # seconds between two looks

_watching: "list[subprocess.Popen[bytes]]" = []  # holds the pipe open as long as this process lives


def end_with_command(stop_file: Path) -> None:
    """Let everything that this process starts from here on end with it, on Linux.

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
    """Return the processes in whose environment the mark stands."""
    found, text = [], f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found


def end_leftovers(mark: str, stop_file: Path) -> None:
    """Ask the processes with a mark to save, and end those that are there after a while."""
    if processes_with(mark) and not stop_file.exists():
        stop_file.write_text(f"{int(signal.SIGTERM)}\n")
    deadline = time.monotonic() + GRACE
    while left := processes_with(mark):
        for pid in left if time.monotonic() > deadline else ():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(PAUSE)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_leftovers(sys.argv[1], Path(sys.argv[2]))
