"""A training as Hydra's job: its report, its errors, its exit status."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from convtrain.config.metrics import not_logged
from convtrain.config.schema import Config
from convtrain.errors import ConvtrainError, OccupiedError
from convtrain.launch.failure import Failure, failure_of
from convtrain.launch.start import train, train_anywhere
from convtrain.process.atomic import line_on_full_disk
from convtrain.process.output import keep_output_open
from convtrain.process.ranks import as_launched, is_main_process, rank_info
from convtrain.process.signals import LIMIT_SIGNALS, Interrupted, Signals, requeue
from convtrain.run.commands import of_resumed, resume_command
from convtrain.run.directory import Run
from convtrain.run.report import print_line, print_report
from convtrain.run.result import Result, metric_of, numbers
from convtrain.sweeps.jobs import JobSkippedError, NotStartedError, share_cores, train_unless_done
from convtrain.sweeps.reading import read_sweep

log = logging.getLogger("convtrain")


def run_job(
    read_config: Callable[[], Config], *, run_dir: Path, overrides: Sequence[str], multirun: bool
) -> float | None:
    """Train, print the report, and return the metric that sweepers read, ``sweep.metric``.

    An error that a user can mend is shown as one line, unless ``HYDRA_FULL_ERROR=1``; any other
    with its traceback. Both are stored in the run's log and in ``error.txt``. A single run then
    exits with status 2 for a wrong configuration and 1 for a failed training; in a sweep the other
    jobs continue. A signal stops a sweep as well, with status 128 + its number.
    """
    keep_output_open()  # in a worker of joblib's too
    with Signals() as signals:
        if rank_info().launcher is not None:
            signals.end_when_stuck()
            signals.end_with_parent()
            _log_to_files_only()
        try:
            return _run(read_config, run_dir, overrides, multirun, signals)
        except Interrupted as interrupted:
            signals.busy = True
            is_limit = interrupted.signum in LIMIT_SIGNALS
            status = requeue() if is_limit and is_main_process() else None
            _report_interruption(interrupted, run_dir, multirun)
            _end_together()
            sys.exit(status or interrupted.exit_status)


def _run(
    read_config: Callable[[], Config],
    run_dir: Path,
    overrides: Sequence[str],
    multirun: bool,
    signals: Signals,
) -> float | None:
    try:
        config = read_config()
        if multirun:
            result = train_unless_done(_train_as_one_of_many, config, run_dir, overrides, signals)
        else:
            if config.resume:
                overrides = of_resumed(Run(run_dir).read_overrides(), overrides)
            result = train(config, run_dir, overrides, signals, quiet=True)
    except JobSkippedError as skipped:
        level = logging.INFO if isinstance(skipped, NotStartedError) else logging.WARNING
        log.log(level, "%s", skipped)  # the table counts the jobs that are not started
        status = skipped.exit_status
    except Exception as error:
        failure = failure_of(error, run_dir)
        status = failure.status
        if isinstance(error, ConvtrainError):
            log.error("%s", error, exc_info=os.environ.get("HYDRA_FULL_ERROR") == "1")
            if failure.traceback:  # for the log alone
                logging.getLogger("traceback").error("%s", failure.traceback)
        else:
            log.error("%s", line_on_full_disk(error, run_dir) or failure.traceback)
        if not isinstance(error, OccupiedError):
            _store(failure, run_dir, overrides)
    else:
        measured = metric_of(result, config.sweep.metric)
        if multirun:
            print_line(result, overrides)
            if measured is None:
                log.warning("%s", not_logged("sweep.metric", config.sweep.metric, numbers(result)))
        elif is_main_process():
            print_report(result, config=config, run_dir=run_dir, overrides=overrides)
        return measured
    if not multirun:
        sys.exit(status)
    return None


def _store(failure: Failure, run_dir: Path, overrides: Sequence[str]) -> None:
    """Store a failure with the run; each rank that torchrun or srun has started shows its own."""
    here = rank_info()
    if here.launcher is not None:
        print(failure.traceback, file=sys.stderr, end="")
    if here.rank:
        print(f"rank {here.rank}: {failure.line}", file=sys.stderr, flush=True)
    else:
        Run(run_dir).fail(failure.line, overrides)


def _train_as_one_of_many(
    config: Config, run_dir: Path, overrides: Sequence[str], signals: Signals
) -> Result:
    as_launched(config)
    return train_anywhere(config, run_dir, overrides, signals, share_cores=share_cores)


def _report_interruption(interrupted: Interrupted, run_dir: Path, multirun: bool) -> None:
    """Log how to resume; show the table of a sweep that runs in this process."""
    if not is_main_process():
        return
    if multirun:
        from convtrain.sweeps.callback import close_sweep, is_under_way

        if is_under_way():
            close_sweep(run_dir.parent)
    if Run(run_dir).is_resumable:
        command = read_sweep(run_dir.parent).command if multirun else ""
        again = command or resume_command(run_dir)
        log.warning("stopped by %s; to resume: %s", interrupted, again)
    else:
        log.warning("stopped by %s before anything was saved", interrupted)


def _end_together() -> None:
    """Wait for the main process: torchrun and srun end all ranks as soon as one has ended."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        with suppress(RuntimeError):  # a rank is gone
            torch.distributed.barrier()


def _log_to_files_only() -> None:
    """Leave the terminal to the main process."""
    if is_main_process():
        return
    for logger in (logging.getLogger(), log):
        for handler in list(logger.handlers):
            if not isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
