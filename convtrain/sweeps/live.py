"""A line on how a sweep stands, while it runs; read from the jobs' directories."""

import shutil
import sys
import threading
import time
from pathlib import Path

from convtrain.run.report import ERASE
from convtrain.sweeps.results import Job, Sweep, job_folders, read_job, status_of
from convtrain.sweeps.table import duration, number

PAUSE = 0.5  # seconds between two looks


class LiveLine:
    """Looks at a sweep's directory again and again, in a thread, and tells what has changed.

    On a terminal the line is written over and over; elsewhere a new one follows each job's end.
    """

    def __init__(self, folder: Path, metric: str, total: int | None) -> None:
        self.folder, self.metric, self.total = folder, metric, total
        self.told = 0
        self._done: dict[str, Job] = {}
        self._before = 0  # jobs that had ended when this one began to look
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="live line")

    def start(self) -> None:
        self._look()
        self.told = self._before = len(self._done)
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        if sys.stderr.isatty():
            print(ERASE, end="", file=sys.stderr, flush=True)

    def _watch(self) -> None:
        while not self._ended.wait(PAUSE):
            self._tell(self.line())

    def _tell(self, line: str) -> None:
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns
            print(f"{ERASE}{line[: width - 1]}", end="", file=sys.stderr, flush=True)
            return
        if (ended := len(self._done)) != self.told:
            print(line, file=sys.stderr, flush=True)
            self.told = ended

    def line(self) -> str:
        """Return the line: done, running, failed, the best so far, the time left."""
        running = self._look()
        jobs = list(self._done.values())
        sweep = Sweep(self.folder, jobs, self.metric, self.total)
        total = max(self.total, len(jobs)) if self.total is not None else "?"
        finished = sweep.count("finished")
        parts = [f"{finished} of {total} done", f"{running} running"]
        parts.append(f"{sweep.count('failed')} failed")
        text = ", ".join(parts)
        if (best := sweep.best()) is not None:
            settings = " ".join(f"{k}={best.settings[k]}" for k in _differing(sweep, best))
            value = number(self.metric, best.result[self.metric])
            text += f"; best {self.metric} {value} ({settings or f'job {best.name}'})"
        if (left := self.time_left()) is not None:
            text += f"; about {duration(left)} left"
        return text

    def time_left(self) -> float | None:
        """Return the seconds left, by the pace at which jobs have ended since the start."""
        ended = len(self._done) - self._before
        if self.total is None or not ended:
            return None
        left = max(self.total - len(self._done), 0)
        return (time.monotonic() - self._began) / ended * left

    def _look(self) -> int:
        """Take in the jobs that have ended since the last look; return how many run."""
        running = 0
        for path in job_folders(self.folder):
            status = status_of(path)
            running += status == "running"
            known = self._done.get(path.name)
            if status in ("finished", "failed") and (known is None or known.status != status):
                self._done[path.name] = read_job(path)
        return running


def _differing(sweep: Sweep, best: Job) -> list[str]:
    return [key for key in sweep.differing if key in best.settings]
