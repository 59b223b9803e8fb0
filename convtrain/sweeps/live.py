"""Print a line of progress while a sweep runs, read from the jobs' directories."""

import shutil
import sys
import threading
import time
from pathlib import Path

from convtrain.run.directory import Run
from convtrain.run.report import ERASE
from convtrain.sweeps.reading import job_folders, read_job, status_of
from convtrain.sweeps.results import Job, Sweep
from convtrain.text import format_duration, format_metric

POLL_SECONDS = 0.5


class LiveLine:
    """Polls a sweep's directory in a thread; on a terminal it overwrites its line."""

    def __init__(self, folder: Path, metric: str, total: int | None, mode: str = "auto") -> None:
        self.folder, self.metric, self.total, self.mode = folder, metric, total, mode
        self.printed = 0  # ended jobs at the last line
        self._done: dict[str, Job] = {}
        self._before = 0  # ended jobs at the start
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="live line")

    def start(self) -> None:
        self._read()
        self.printed = self._before = len(self._done)
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        if sys.stderr.isatty():
            print(ERASE, end="", file=sys.stderr, flush=True)

    def _run(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            line = self.line()
            if sys.stderr.isatty():
                width = shutil.get_terminal_size().columns
                print(f"{ERASE}{line[: width - 1]}", end="", file=sys.stderr, flush=True)
            elif len(self._done) != self.printed:
                print(line, file=sys.stderr, flush=True)
                self.printed = len(self._done)

    def line(self) -> str:
        """Return the jobs done, running and failed, the best one, and the time left."""
        running = self._read()
        sweep = Sweep(
            self.folder, list(self._done.values()), self.metric, self.mode, total=self.total
        )
        total = "?" if self.total is None else sweep.expected
        done, failed = (len(sweep.with_status(status)) for status in ("finished", "failed"))
        text = f"{done} of {total} done, {running} running, {failed} failed"
        if (best := sweep.best()) is not None:
            differing = [key for key in sweep.differing if key in best.settings]
            settings = " ".join(f"{key}={best.settings[key]}" for key in differing)
            value = format_metric(self.metric, best.number(self.metric) or 0.0)
            text += f"; best {self.metric} {value} ({settings or f'job {best.name}'})"
        if (left := self._seconds_left()) is not None:
            text += f"; about {format_duration(left)} left"
        return text

    def _seconds_left(self) -> float | None:
        ended = len(self._done) - self._before
        if self.total is None or not ended:
            return None
        left = max(self.total - len(self._done), 0)
        return (time.monotonic() - self._began) / ended * left

    def _read(self) -> int:
        """Read the jobs that have ended since the last call; return how many run."""
        running = 0
        for path in job_folders(self.folder):
            status = status_of(Run(path))
            running += status == "running"
            known = self._done.get(path.name)
            if status in ("finished", "failed") and (known is None or known.status != status):
                self._done[path.name] = read_job(path)
        return running
