"""Read a sweep and its jobs from their directories."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from convtrain.command.sweep import RECORD
from convtrain.config.dotted import leaves
from convtrain.errors import ConvtrainError, CorruptDataError, MissingDataError
from convtrain.process.lock import entered_at
from convtrain.program import as_typed
from convtrain.run.directory import Run
from convtrain.sweeps.results import Job, Sweep


def read_sweep(folder: Path | str) -> Sweep:
    """Read a sweep's directory; raise MissingDataError if it holds neither a record nor a job."""
    folder = Path(folder)
    record = read_record(folder)
    jobs = sorted(map(read_job, job_folders(folder)), key=lambda job: job.entered or 0.0)
    if not jobs and not record:
        raise MissingDataError(
            f"{folder}: no sweep; give the directory that {as_typed('python train.py -m')} has "
            f"named"
        )
    total = record.get("jobs")
    return Sweep(
        folder, jobs, metric=str(record.get("metric", "val/acc")),
        mode=str(record.get("mode", "auto")),
        total=total if isinstance(total, int) else None, since=began_at(folder),
        command=str(record.get("command", "")), cwd=Path(str(record.get("cwd", "."))),
    )  # fmt: skip


def read_record(folder: Path) -> dict[str, object]:
    """Return what the sweep's command stored, or nothing if it cannot be read."""
    try:
        read = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def began_at(folder: Path) -> float:
    """Return when a sweep's last command began, in seconds since 1970; 0 if unknown."""
    since = read_record(folder).get("since")
    return float(since) if isinstance(since, int | float) else 0.0


def job_folders(folder: Path) -> list[Path]:
    """Return the jobs' directories, with ``2_a`` before ``10_a``."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and _is_job(path)]
    return sorted(found, key=lambda path: _by_number(path.name))


def _by_number(name: str) -> list[str | int]:
    parts = re.split(r"(\d+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _is_job(path: Path) -> bool:
    return not path.name.startswith(".") and (path.name.isdigit() or Run(path).is_entered)


def read_job(path: Path) -> Job:
    run, damage = Run(path), ""
    result: Mapping[str, object] = {}
    overrides: list[str] = []
    try:
        result, overrides = run.read_result() or {}, run.read_overrides()
    except CorruptDataError as error:
        damage = str(error)
    return Job(
        name=path.name,
        path=path,
        status=status_of(run, is_damaged=bool(damage)),
        overrides=tuple(overrides),
        result=result,
        error=damage or run.read_error() or "",
        threads=_threads(run) if result else None,
        entered=entered_at(path),
    )


def status_of(run: Run, *, is_damaged: bool = False) -> str:
    """Return a job's status; a damaged job has failed."""
    if run.is_finished and not is_damaged:
        return "finished"
    if run.is_locked:
        return "running"
    if run.has_failed or is_damaged:
        return "failed"
    return "unfinished" if run.is_begun else "waiting"


def _threads(run: Run) -> int | None:
    """Return torch's number of threads if nobody set it and the job ran on one device."""
    try:
        asked, provenance = dict(leaves(run.read_config())), dict(leaves(run.read_provenance()))
    except ConvtrainError:
        return None
    if asked.get("trainer.threads") is not None or provenance.get("launched.devices", 1) != 1:
        return None
    threads = provenance.get("threads")
    return threads if isinstance(threads, int) else None
