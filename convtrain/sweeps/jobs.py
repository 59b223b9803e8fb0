"""Train one job of a sweep, on its share of the machine; skip it if it is finished."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import BinaryIO

from hydra.core.hydra_config import HydraConfig

from convtrain.command.sweep import jobs_at_once
from convtrain.config.schema import Config
from convtrain.errors import CorruptDataError, MissingDataError, TrainingError
from convtrain.process.hardware import VARIABLE, cores
from convtrain.process.lock import entered_at, locked, take
from convtrain.process.signals import Signals
from convtrain.process.startup import environment_restored
from convtrain.run.directory import Run
from convtrain.run.result import Result
from convtrain.sweeps.reading import began_at
from convtrain.sweeps.results import is_since
from convtrain.sweeps.stopping import stopped_by, stops_with_sweep

REFUSED = ".refused"  # in the sweep's directory: a job's directory holds another training
GPUS = ".gpus"  # in the sweep's directory: a lock for each GPU
POLL_SECONDS = 0.1

log = logging.getLogger("convtrain")

Train = Callable[[Config, Path, Sequence[str], Signals], Result]


class JobSkippedError(TrainingError):
    """The sweep does not train this job."""


class NotStartedError(JobSkippedError):
    """A stopped sweep leaves this job to its next command."""


def train_unless_done(
    train: Train, config: Config, run_dir: Path, overrides: Sequence[str], signals: Signals
) -> Result:
    """Return a job's result; train or resume the job if it is not finished.

    Raises:
        JobSkippedError: the job has failed before, or its directory holds another training.
        NotStartedError: a signal or ``sweep.fail_fast`` has stopped the sweep.
        TrainingError: the training fails.
        Interrupted: a signal interrupts it.
    """
    run, sweep = Run(run_dir), run_dir.parent
    with locked(run_dir, waits=True), stops_with_sweep(sweep, signals), environment_restored():
        _refuse_other(config, run)
        try:
            if (result := run.read_result()) is not None:
                return result
        except CorruptDataError as error:
            log.warning("%s; the job is trained again from its last checkpoint", error)
        if run.has_failed:
            raise JobSkippedError(
                f"{run_dir}: failed before; add sweep.retry_failed=true to try it again: "
                f"{run.read_error()}"
            )
        if config.sweep.fail_fast and (failed := _failed_in(sweep)):
            raise NotStartedError(f"not started: job {failed} has failed (sweep.fail_fast=true)")
        if stopped_by(sweep) is not None:
            raise NotStartedError("not started: the sweep was stopped")
        if run.is_resumable:
            config = config.model_copy(update={"resume": str(run_dir)})
        else:
            run.announce(config, overrides)
        _, gpus = _jobs_and_gpus()
        if gpus:
            take_gpu(sweep, gpus)
        if not any("callbacks.progress_bar=" in text for text in overrides):
            callbacks = config.callbacks.model_copy(update={"progress_bar": False})
            config = config.model_copy(update={"callbacks": callbacks})  # the live line replaces it
        with (run_dir / "output.txt").open("a") as output, redirect_stdout(output):
            return train(config, run_dir, overrides, signals)


def _refuse_other(config: Config, run: Run) -> None:
    """Raise JobSkippedError if the directory holds another or an unreadable training."""
    if not run.is_finished and not run.saved():
        return
    try:
        if not (keys := run.differing(config)):
            return
        refusal = (
            f"{run.path}: holds a job with another {', another '.join(keys[:3])}, which stays; "
            f"give another hydra.sweep.dir"
        )
    except (CorruptDataError, MissingDataError) as error:
        refusal = f"{error}; remove {run.path} to train this job again"
    (run.path.parent / REFUSED).touch()
    raise JobSkippedError(refusal)


def _failed_in(sweep: Path) -> str | None:
    """Return the first job that has failed since the sweep's last command began."""
    since = began_at(sweep)
    failed = (path for path in sorted(sweep.iterdir()) if Run(path).has_failed)
    return next((job.name for job in failed if is_since(entered_at(job), since)), None)


def take_gpu(sweep: Path, gpus: Sequence[str]) -> None:
    """Make a GPU visible that no other process of the sweep has; wait until one is free.

    CUDA reads the variable only once, so a process keeps its GPU for all its jobs. The kernel
    releases the lock when the process ends, even if it is killed.
    """
    if sweep not in _gpus:
        _gpus[sweep] = _wait_for_one(sweep / GPUS, gpus)
    os.environ[VARIABLE] = _gpus[sweep][0]
    log.info("on GPU %s, of %s", _gpus[sweep][0], ", ".join(gpus))


def _wait_for_one(folder: Path, gpus: Sequence[str]) -> tuple[str, BinaryIO]:
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for name in gpus:
            file = (folder / name.replace("/", "_")).open("a+b")
            if take(file):
                return name, file
            file.close()
        time.sleep(POLL_SECONDS)


def share_cores(processes: int) -> None:
    """Divide the cores among jobs that run at once; 0 ``processes`` means that this one trains."""
    at_once = jobs_at_once(HydraConfig.get(), *_jobs_and_gpus())
    share = max(cores() // (at_once * max(processes, 1)), 1)
    if processes:
        if at_once > 1:
            os.environ["OMP_NUM_THREADS"] = str(share)
        return
    import torch

    alone = _threads.setdefault("alone", torch.get_num_threads())
    torch.set_num_threads(alone if at_once == 1 else share)


def _jobs_and_gpus() -> tuple[int | None, Sequence[str] | None]:
    if not HydraConfig.initialized():
        return None, None
    settings = HydraConfig.get().callbacks.get("sweep_table", {})
    return settings.get("jobs"), settings.get("gpus")


_gpus: dict[Path, tuple[str, BinaryIO]] = {}  # by sweep, with the lock
_threads: dict[str, int] = {}  # torch's default, from before a job changed it
