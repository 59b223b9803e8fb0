"""One job of a sweep: skipped where it is finished, gone on with where it was left off."""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from convtrain.command.sweep import jobs_at_once
from convtrain.config.schema import Config
from convtrain.errors import CorruptDataError, MissingDataError, TrainingError
from convtrain.process.hardware import cores
from convtrain.process.lock import entered_at, locked
from convtrain.process.signals import Signals
from convtrain.process.startup import environment_restored
from convtrain.run.directory import Run
from convtrain.run.result import Result
from convtrain.sweeps.results import began_at, is_since
from convtrain.sweeps.stopping import stopped_by, told_of_stop

REFUSED = ".refused"  # in a sweep's directory: some job's place is taken by another training

log = logging.getLogger("convtrain")

Train = Callable[[Config, Path, Sequence[str], Signals], Result]


class JobSkippedError(TrainingError):
    """A job that is left alone, because of what happened before or elsewhere."""


class NotStartedError(JobSkippedError):
    """A job that is left for the next time."""


def train_unless_done(
    train: Train, config: Config, run_dir: Path, overrides: Sequence[str], signals: Signals
) -> Result:
    """Return the result of a job, which is trained only as far as it is not trained yet.

    Args:
        train: trains in this process.
        config: of the job.
        run_dir: its directory, in the sweep's.
        overrides: the job's own, as Hydra hands them out.
        signals: that end it where it can be resumed.

    Raises:
        JobSkippedError: it has failed before.
        NotStartedError: the sweep is stopped, by a signal or by ``sweep.fail_fast``.
        TrainingError: it fails.
        Interrupted: a signal has ended it.
    """
    run, sweep = Run(run_dir), run_dir.parent
    with locked(run_dir, waits=True), told_of_stop(sweep, signals), environment_restored():
        try:
            refuse_other(config, run)
        except JobSkippedError:
            (sweep / REFUSED).touch()
            raise
        if (result := stored_result(run)) is not None:
            return result
        if run.has_failed:
            raise JobSkippedError(
                f"{run_dir}: failed before; add sweep.retry_failed=true to try it again: "
                f"{run.read_error()}"
            )
        if config.sweep.fail_fast and (failed := failed_in(sweep)):
            raise NotStartedError(f"not started: job {failed} has failed (sweep.fail_fast=true)")
        if stopped_by(sweep) is not None:
            raise NotStartedError("not started: the sweep was stopped")
        if run.is_resumable:
            config = config.model_copy(update={"resume": str(run_dir)})
        else:
            run.announce(config, overrides)
        if gpus := of_sweep("gpus"):
            from convtrain.sweeps.gpus import take_gpu

            take_gpu(sweep, gpus)
        if not any("callbacks.progress_bar=" in text for text in overrides):
            config = _without_bar(config)  # a line on the sweep stands in its place
        with (run_dir / "output.txt").open("a") as output, redirect_stdout(output):
            return train(config, run_dir, overrides, signals)


def _without_bar(config: Config) -> Config:
    callbacks = config.callbacks.model_copy(update={"progress_bar": False})
    return config.model_copy(update={"callbacks": callbacks})


def refuse_other(config: Config, run: Run) -> None:
    """Refuse the directory of another training, whose results would be lost.

    Raises:
        JobSkippedError: it holds one, or what it holds cannot be told.
    """
    if not run.is_finished and not run.saved():
        return
    try:
        keys = run.differing(config)
    except (CorruptDataError, MissingDataError) as error:
        raise JobSkippedError(f"{error}; remove {run.path} to train this job again") from error
    if keys:
        raise JobSkippedError(
            f"{run.path}: holds a job with another {', another '.join(keys[:3])}, which stays; "
            f"give another hydra.sweep.dir"
        )


def stored_result(run: Run) -> Result | None:
    """Return the result of a job that is finished already, if it can be read."""
    try:
        return run.read_result()
    except CorruptDataError as error:
        log.warning("%s; it is made again from the last checkpoint", error)
        return None


def failed_in(sweep: Path) -> str | None:
    """Return the name of a job of a sweep that has failed, if its command has come to one."""
    since = began_at(sweep)
    failed = (path for path in sorted(sweep.iterdir()) if Run(path).has_failed)
    return next((job.name for job in failed if is_since(entered_at(job), since)), None)


def share_cores(processes: int) -> None:
    """Keep a job to its part of the machine's cores, among those that run at the same time.

    Args:
        processes: that the job starts to train in, which take their part of the part; 0 where it
            trains in this one.
    """
    at_once = _at_once()
    share = max(cores() // (at_once * max(processes, 1)), 1)
    if processes:
        if at_once > 1:
            os.environ["OMP_NUM_THREADS"] = str(share)
        return
    import torch

    alone = _threads.setdefault("alone", torch.get_num_threads())
    torch.set_num_threads(alone if at_once == 1 else share)


def _at_once() -> int:
    from hydra.core.hydra_config import HydraConfig

    return jobs_at_once(HydraConfig.get(), of_sweep("jobs"), of_sweep("gpus"))


def of_sweep(key: str) -> Any:
    """Return what train.py has found out about the sweep that this job is of, or None."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    return HydraConfig.get().callbacks.get("sweep_table", {}).get(key)


_threads: dict[str, int] = {}  # how many torch takes by itself, before any training says otherwise
