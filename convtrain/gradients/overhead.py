"""What recording costs, measured by the recorder itself."""

import time
from types import TracebackType

SETTLED = 1.0  # seconds of recording before their share of the time means anything


class Overhead:
    """A stopwatch for the training thread: ``with overhead: ...`` around all that recording does.

    Work on an accelerator is counted as long as the host waits for it, which recording avoids.
    """

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.seconds = self._seconds_then = 0.0
        self._began = self._then = time.perf_counter()

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds += time.perf_counter() - self._entered

    def share(self) -> float:
        """Return the part of all the time since the start, in 0-1."""
        return self.seconds / max(time.perf_counter() - self._began, 1e-9)

    def recent_share(self) -> float:
        """Return the part of the time since this was last asked; 0 until it means anything."""
        now = time.perf_counter()
        share = (self.seconds - self._seconds_then) / max(now - self._then, 1e-9)
        self._then, self._seconds_then = now, self.seconds
        return share if self.seconds > SETTLED else 0.0
