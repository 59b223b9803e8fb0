"""What the jobs of a sweep have come to, read from their directories alone."""

import json
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convtrain.command.sweep import RECORD
from convtrain.config.dotted import leaves
from convtrain.config.identity import NEUTRAL, role_of
from convtrain.config.metrics import mode_of
from convtrain.errors import ConvtrainError, CorruptDataError, MissingDataError
from convtrain.process.lock import entered_at
from convtrain.run.commands import is_option, key_of, train_command
from convtrain.run.directory import Run

METRICS = ("val/acc", "val/loss", "test/acc", "test/loss")
SEED = "seed"
STATUSES = ("finished", "failed", "running", "unfinished", "waiting")


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        name: of its directory, its number.
        path: of its directory.
        status: finished, failed, running, unfinished (it may go on), or waiting (for its turn).
        overrides: what was typed for it, options included.
        result: what stands in its ``result.json``; empty before it is finished.
        error: one line on why it failed.
        threads: of torch, if they were left to the launcher.
        entered: when a command came to it last, in seconds since 1970, if that is known.
    """

    name: str
    path: Path
    status: str
    overrides: tuple[str, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    threads: int | None = None
    entered: float | None = None

    @property
    def settings(self) -> dict[str, str]:
        """Its overrides, from key to value, as far as they make it the training that it is."""
        own = [text for text in self.overrides if "=" in text and not is_option(text)]
        pairs = {key_of(text): text.partition("=")[2] for text in own}
        return {
            key: value
            for key, value in pairs.items()
            if not key.startswith("hydra") and role_of(key) != NEUTRAL
        }

    @property
    def callback_metrics(self) -> dict[str, float]:
        """The last values of what callbacks have logged."""
        return dict(self.result.get("callback_metrics", {}))

    @property
    def verdict(self) -> str:
        """What its gradients were like, in a few words."""
        lines = self.result.get("gradients") or [""]
        return "healthy" if lines[0].startswith("Healthy") else str(lines[-1])


@dataclass(frozen=True)
class Row:
    """Jobs that differ in nothing but their seed."""

    jobs: tuple[Job, ...]

    @property
    def settings(self) -> dict[str, str]:
        return {key: v for key, v in self.jobs[0].settings.items() if key != SEED}

    def values(self, metric: str) -> list[float]:
        return [job.result[metric] for job in self.jobs if metric in job.result]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Return the standard deviation over seeds (n - 1), None for fewer than two."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def verdict(self) -> str:
        told = dict.fromkeys(job.verdict for job in self.jobs if job.result)
        return " / ".join(told)

    @property
    def status(self) -> str:
        counts = {s: sum(job.status == s for job in self.jobs) for s in STATUSES}
        present = {status: count for status, count in counts.items() if count}
        if len(present) == 1:
            return next(iter(present))
        return ", ".join(f"{count} {status}" for status, count in present.items())

    def command(self) -> str:
        """Return the command that trains these jobs again, to the same bits on this machine."""
        seeds = [job.settings[SEED] for job in self.jobs if SEED in job.settings]
        typed = [
            f"{SEED}={','.join(seeds)}" if key_of(text) == SEED and len(seeds) > 1 else text
            for text in self.jobs[0].overrides
            if is_option(text) or not key_of(text).startswith("hydra")
        ]
        threads = {job.threads for job in self.jobs} - {None}
        typed += [f"trainer.threads={threads.pop()}"] if len(threads) == 1 else []
        return train_command(*(["-m"] if len(self.jobs) > 1 else []), *typed)


@dataclass(frozen=True)
class Sweep:
    """A sweep as it stands.

    Attributes:
        folder: its directory.
        jobs: those that have been started, in the order in which the last command came to them.
        metric: that ranks them.
        total: how many jobs it has, where that is known.
        command: that started it.
        since: when that was, in seconds since 1970.
    """

    folder: Path
    jobs: list[Job]
    metric: str = "val/acc"
    total: int | None = None
    command: str = ""
    since: float = 0.0

    @property
    def current(self) -> list[Job]:
        """The jobs that the last command has come to; others are from before it."""
        return [job for job in self.jobs if is_since(job.entered, self.since)]

    @property
    def more_is_better(self) -> bool:
        return mode_of(self.metric) == "max"

    @property
    def differing(self) -> list[str]:
        """The keys that not all jobs have in common."""
        keys = dict.fromkeys(key for job in self.jobs for key in job.settings)
        return [k for k in keys if len({job.settings.get(k) for job in self.jobs}) > 1]

    def rows(self) -> list[Row]:
        """Return the jobs by what they were set to, the best first, the unmeasured last."""
        groups: dict[tuple[tuple[str, str], ...], list[Job]] = {}
        for job in self.jobs:
            key = tuple(sorted((k, v) for k, v in job.settings.items() if k != SEED))
            groups.setdefault(key, []).append(job)

        def rank(row: Row) -> tuple[bool, float]:
            mean = row.mean(self.metric)
            if mean is None:
                return True, 0.0
            return False, -mean if self.more_is_better else mean

        return sorted((Row(tuple(jobs)) for jobs in groups.values()), key=rank)

    def best(self) -> Job | None:
        measured = [job for job in self.jobs if self.metric in job.result]
        sign = 1 if self.more_is_better else -1
        return max(measured, key=lambda job: sign * job.result[self.metric], default=None)

    @property
    def unmeasured(self) -> list[Job]:
        """Finished jobs that have not measured the metric, so that they have no rank."""
        finished = (job for job in self.current if job.status == "finished")
        return [job for job in finished if job.result.get(self.metric) is None]

    def count(self, *statuses: str) -> int:
        """Return how many of the current jobs stand so."""
        return sum(job.status in statuses for job in self.current)

    @property
    def is_finished(self) -> bool:
        return self.count("finished") == max(self.total or 0, len(self.current))


def read_sweep(folder: Path | str) -> Sweep:
    """Read a sweep's directory, whether the sweep is finished or not.

    Raises:
        MissingDataError: there is no such directory, or it holds no jobs.
    """
    folder = Path(folder)
    record = _read_json(folder / RECORD)
    jobs = sorted(map(read_job, job_folders(folder)), key=lambda job: job.entered or 0.0)
    if not jobs and not record:
        raise MissingDataError(
            f"{folder}: no sweep; give the directory that python train.py -m has named"
        )
    known = {key: record[key] for key in ("metric", "command") if isinstance(record.get(key), str)}
    total = record.get("jobs")
    return Sweep(
        folder, jobs, total=total if isinstance(total, int) else None, since=began_at(folder),
        **known,
    )  # fmt: skip


def began_at(folder: Path) -> float:
    """Return when the last command of a sweep began, in seconds since 1970; 0 if not known."""
    since = _read_json(folder / RECORD).get("since")
    return float(since) if isinstance(since, int | float) else 0.0


def is_since(entered: float | None, since: float) -> bool:
    return entered is None or entered >= since


def job_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and _is_job(path)]
    return sorted(found, key=lambda path: _by_number(path.name))


def _is_job(path: Path) -> bool:
    """Tell whether a folder in a sweep's directory is a job's, however its name is made."""
    return not path.name.startswith(".") and (path.name.isdigit() or Run(path).is_entered)


def _by_number(name: str) -> list[tuple[str, int]]:
    """Return what sorts names by the numbers in them: ``2_a`` before ``10_a``."""
    parts = re.split(r"(\d+)", name)
    return [(text, int(n)) for text, n in zip(parts[::2], [*parts[1::2], "0"], strict=True)]


def read_job(path: Path) -> Job:
    run, damage, result, overrides = Run(path), "", None, []
    try:
        result, overrides = run.read_result(), run.read_overrides()
    except CorruptDataError as error:
        damage = str(error)
    failed = damage or run.read_error()
    return Job(
        name=path.name,
        path=path,
        status=_status(run, result is not None and not damage, failed is not None),
        overrides=tuple(overrides),
        result=dict(result or {}),
        error=failed or "",
        threads=_threads(run) if result else None,
        entered=entered_at(path),
    )


def status_of(path: Path) -> str:
    """Return how a job stands, from a look at its directory."""
    run = Run(path)
    return _status(run, run.is_finished, run.has_failed)


def _status(run: Run, finished: bool, failed: bool) -> str:
    if finished:
        return "finished"
    if run.is_locked:
        return "running"
    if failed:
        return "failed"
    return "unfinished" if run.is_begun else "waiting"


def _threads(run: Run) -> int | None:
    """Return the threads of a job on one device that nobody has asked for."""
    try:
        asked, provenance = dict(leaves(run.read_config())), dict(leaves(run.read_provenance()))
    except ConvtrainError:
        return None
    if asked.get("trainer.threads") is not None or provenance.get("launched.devices", 1) != 1:
        return None
    threads = provenance.get("threads")
    return threads if isinstance(threads, int) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def failures(jobs: Iterable[Job]) -> list[Job]:
    return [job for job in jobs if job.status == "failed"]
