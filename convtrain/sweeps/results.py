"""A sweep, its jobs and their results, as the table and the page show them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from convtrain.config.identity import NEUTRAL, role_of
from convtrain.config.metrics import mode_of
from convtrain.run.commands import is_option, key_of, train_command
from convtrain.run.result import METRICS, metric_names, tested_on_validation

REPLICATES = {"seed": "seeds", "data.fold": "folds"}
"""The keys whose values are averaged over in a table, with the word for several of them."""
STATUSES = ("finished", "failed", "running", "unfinished", "waiting")


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    ``overrides`` are as typed, options included. ``result`` is empty until the job is finished.
    ``threads`` are torch's, if the launcher chose them. ``entered`` is when a command last began to
    work on the job, in seconds since 1970.
    """

    name: str
    path: Path
    status: str
    overrides: tuple[str, ...] = ()
    result: Mapping[str, object] = field(default_factory=dict)
    error: str = ""
    threads: int | None = None
    entered: float | None = None

    @cached_property
    def settings(self) -> dict[str, str]:
        """Its overrides by key, without those that leave the training the same."""
        own = [text for text in self.overrides if "=" in text and not is_option(text)]
        pairs = {key_of(text): text.partition("=")[2] for text in own}
        return {
            key: value
            for key, value in pairs.items()
            if not key.startswith("hydra") and role_of(key) != NEUTRAL
        }

    def number(self, key: str) -> float | None:
        value = self.result.get(key, self.callback_metrics.get(key))
        return value if isinstance(value, int | float) else None

    @property
    def chosen_metrics(self) -> dict[str, float]:
        """The single numbers of the metrics that ``metrics`` chose."""
        names = metric_names(self.result)[len(METRICS) :]
        return {name: value for name in names if (value := self.number(name)) is not None}

    @property
    def callback_metrics(self) -> dict[str, object]:
        logged = self.result.get("callback_metrics")
        return dict(logged) if isinstance(logged, Mapping) else {}

    @property
    def further_metrics(self) -> list[str]:
        """The single numbers that its validation and test gave, beside loss and accuracy."""
        names = (*self.chosen_metrics, *self.callback_metrics)
        return [name for name in names if name.startswith(("val/", "test/"))]

    @property
    def gradients(self) -> list[str]:
        """The lines of its gradient diagnosis."""
        lines = self.result.get("gradients")
        return list(map(str, lines)) if isinstance(lines, Sequence) else []

    @property
    def diagnosis(self) -> str:
        """``healthy``, or the last line of its gradient diagnosis."""
        lines = self.gradients or [""]
        return "healthy" if lines[0].startswith("Healthy") else lines[-1]


@dataclass(frozen=True)
class Replicates:
    """Jobs that differ only in their seed and in their fold: a row of the sweep's table."""

    jobs: tuple[Job, ...]

    @property
    def settings(self) -> dict[str, str]:
        return {key: v for key, v in self.jobs[0].settings.items() if key not in REPLICATES}

    def values(self, key: str) -> list[str]:
        """Return the values of a setting, each once."""
        return list(dict.fromkeys(j.settings[key] for j in self.jobs if key in j.settings))

    def _measured(self, key: str) -> list[float]:
        return [value for job in self.jobs if (value := job.number(key)) is not None]

    def mean(self, key: str) -> float | None:
        values = self._measured(key)
        return statistics.fmean(values) if values else None

    def std(self, key: str) -> float | None:
        """Return the standard deviation over the jobs (n - 1), None for fewer than two."""
        values = self._measured(key)
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def diagnosis(self) -> str:
        return " / ".join(dict.fromkeys(job.diagnosis for job in self.jobs if job.result))

    @property
    def status(self) -> str:
        counts = {s: sum(job.status == s for job in self.jobs) for s in STATUSES}
        present = {status: count for status, count in counts.items() if count}
        if len(present) == 1:
            return next(iter(present))
        return ", ".join(f"{count} {status}" for status, count in present.items())

    def command(self, cwd: Path | None = None) -> str:
        """Return the command that trains these jobs again, to the same bits on this machine.

        Where some jobs of all seeds and folds are missing, it trains those as well. ``cwd`` is
        where the sweep was typed, if not here.
        """
        values = {key: listed for key in REPLICATES if len(listed := self.values(key)) > 1}
        typed = [
            f"{key}={','.join(values[key])}" if (key := key_of(text)) in values else text
            for text in self.jobs[0].overrides
            if is_option(text) or not key_of(text).startswith("hydra")
        ]
        threads = {job.threads for job in self.jobs} - {None}
        typed += [f"trainer.threads={threads.pop()}"] if len(threads) == 1 else []
        return train_command(*(["-m"] if len(self.jobs) > 1 else []), *typed, cwd=cwd)


def is_since(entered: float | None, since: float) -> bool:
    return entered is None or entered >= since


@dataclass(frozen=True)
class Sweep:
    """A sweep; ``total`` and ``since``, in seconds since 1970, are those of its last command."""

    folder: Path
    jobs: list[Job]
    metric: str = "val/acc"
    mode: str = "auto"
    total: int | None = None
    since: float = 0.0
    command: str = ""
    cwd: Path = Path()  # in which the command was typed

    @property
    def current(self) -> list[Job]:
        """The jobs that the last command has reached."""
        return [job for job in self.jobs if is_since(job.entered, self.since)]

    @property
    def expected(self) -> int:
        return max(self.total or 0, len(self.current))

    @property
    def more_is_better(self) -> bool:
        return mode_of(self.metric, self.mode) == "max"

    @property
    def differing(self) -> list[str]:
        """The keys whose values differ between jobs."""
        keys = dict.fromkeys(key for job in self.jobs for key in job.settings)
        return [k for k in keys if len({job.settings.get(k) for job in self.jobs}) > 1]

    @property
    def shown_metrics(self) -> list[str]:
        """The metric that ranks, accuracy, loss, and what the jobs measured beside them.

        A metric that was tested is not shown as that of the validation as well.
        """
        measured = [name for job in self.jobs for name in job.further_metrics]
        tested = {name for name in measured if name.startswith("test/")}
        twice = {f"val/{name.removeprefix('test/')}" for name in tested}
        shown = (name for name in measured if name not in twice)
        return list(dict.fromkeys((self.metric, "test/acc", "val/loss", *shown)))

    @property
    def replicates(self) -> list[str]:
        """The keys of ``REPLICATES`` of which a row of the table has several values."""
        rows = [[job.settings for job in group.jobs] for group in self.groups()]
        return [k for k in REPLICATES if any(len({s.get(k) for s in row}) > 1 for row in rows)]

    def groups(self) -> list[Replicates]:
        """Return the jobs grouped by settings, the best first, the unmeasured last."""
        groups: dict[tuple[tuple[str, str], ...], list[Job]] = {}
        for job in self.jobs:
            key = tuple(sorted((k, v) for k, v in job.settings.items() if k not in REPLICATES))
            groups.setdefault(key, []).append(job)

        def rank(group: Replicates) -> tuple[bool, float]:
            mean = group.mean(self.metric)
            return mean is None, self._loss(mean)

        return sorted((Replicates(tuple(jobs)) for jobs in groups.values()), key=rank)

    def best(self) -> Job | None:
        measured = [job for job in self.jobs if job.number(self.metric) is not None]
        return min(measured, key=lambda job: self._loss(job.number(self.metric)), default=None)

    def _loss(self, value: float | None) -> float:
        return (value or 0.0) * (-1 if self.more_is_better else 1)

    @property
    def unmeasured(self) -> list[Job]:
        """Finished jobs that have not measured the metric."""
        return [j for j in self.with_status("finished") if j.number(self.metric) is None]

    def with_status(self, *statuses: str) -> list[Job]:
        """Return the last command's jobs that have one of these statuses."""
        return [job for job in self.current if job.status in statuses]

    @property
    def is_finished(self) -> bool:
        return len(self.with_status("finished")) == self.expected

    def tested_note(self) -> str:
        return tested_on_validation({job.name: job.result for job in self.jobs if job.result})

    def standing(self) -> str:
        """Return how many of the last command's jobs have each status, in words."""
        counts = {status: len(self.with_status(status)) for status in STATUSES[:-1]}
        counts["not started"] = self.expected - sum(counts.values())
        parts = [f"{counts.pop('finished')} of {self.expected} jobs finished"]
        parts += [f"{count} {status}" for status, count in counts.items() if count]
        before = len(self.jobs) - len(self.current)
        return ", ".join(parts) + (f"; {before} from before" if before else "")
