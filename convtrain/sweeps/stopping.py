"""A sweep that is asked to stop while its jobs run in other processes.

The command leaves a file in the sweep's directory, which every job looks at. A signal would not do:
the terminal's Ctrl-C reaches the jobs by itself, and a second one ends them before they have saved.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from convtrain.process.signals import Signals, answer
from convtrain.run.directory import Run

FILE = ".stop"  # holds the signal's number
PAUSE = 0.3  # seconds between two looks


def listen(sweep: Path, *, elsewhere: bool, close: Callable[[], object]) -> None:
    """Answer signals to the command of a sweep: stop its jobs, and exit when they have saved.

    Args:
        sweep: its directory.
        elsewhere: the jobs belong to a scheduler, and go on.
        close: shows what they have come to.
    """

    def handle(signum: int, frame: FrameType | None) -> None:
        answer(lambda again, _: os._exit(128 + again))
        if not elsewhere:
            (sweep / FILE).write_text(f"{signum}\n")
            while any(Run(path).is_locked for path in sweep.iterdir()):
                time.sleep(0.1)
        close()
        sys.exit(128 + signum)

    (sweep / FILE).unlink(missing_ok=True)
    answer(handle)


def stopped_by(sweep: Path) -> int | None:
    """Return the number of the signal that a sweep was stopped by, or None."""
    try:
        return int((sweep / FILE).read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def told_of_stop(sweep: Path, signals: Signals) -> Iterator[None]:
    """Tell this process of the sweep's signal, unless the signal has come to it as well."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(PAUSE):
            if (signum := stopped_by(sweep)) is not None:
                if signals.received is None:
                    os.kill(os.getpid(), signum)
                return

    thread = threading.Thread(target=look, daemon=True, name="stop")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
