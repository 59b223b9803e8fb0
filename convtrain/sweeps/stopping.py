"""Stop a sweep whose jobs run in other processes.

The command writes a file into the sweep's directory, and every job polls it. A signal would not do:
the terminal sends Ctrl-C to the jobs too, and a second signal ends them before they have saved.
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

FILE = ".stop"  # in the sweep's directory; holds the number of the signal
POLL_SECONDS = 0.3


def listen(sweep: Path, *, elsewhere: bool, close: Callable[[], object]) -> None:
    """On a signal, stop the jobs unless a scheduler runs them ``elsewhere``, and exit."""

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
    """Return the number of the signal that stopped a sweep, or None."""
    try:
        return int((sweep / FILE).read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def stops_with_sweep(sweep: Path, signals: Signals) -> Iterator[None]:
    """Send this process the signal that stopped the sweep, unless it has received one itself."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            if (signum := stopped_by(sweep)) is not None:
                if signals.received is None:
                    os.kill(os.getpid(), signum)
                return

    thread = threading.Thread(target=poll, daemon=True, name="stop")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
