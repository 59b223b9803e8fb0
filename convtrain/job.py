"""One training as a job of Hydra's: its report, its errors, its exit status."""

import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from traceback import format_exception
from typing import Any

from convtrain.config.schema import Config
from convtrain.errors import ConvtrainError
from convtrain.files import line_on_full_disk
from convtrain.imports import imports_kept
from convtrain.runs.directory import RunDirectory
from convtrain.signals import Interrupted, Signals, requeue_slurm_job
from convtrain.sweeps.jobs import LeftAloneError, run_once, share_threads

log = logging.getLogger("convtrain")


def run_job(
    read_config: Callable[[], Config], *, run_dir: Path, overrides: Sequence[str], multirun: bool
) -> float | None:
    """Train, print the report, and return the metric that sweepers look at, ``sweep.metric``.

    What a user can mend is shown as one line, unless ``HYDRA_FULL_ERROR=1``; anything else with
    its traceback. Both stand in the run's log and in ``error.txt``. A single run then exits with
    status 2 for a wrong configuration and 1 for a failed training; in a sweep the other jobs go on.
    A signal ends a sweep as well, with the status 128 + its number.
    """
    with Signals() as signals:
        try:
            return _run(read_config, run_dir, overrides, multirun, signals)
        except Interrupted as interrupted:
            signals.busy = True
            _report_interruption(interrupted, run_dir, multirun)
            sys.exit(interrupted.exit_status if _tells_status() else 0)


def _run(
    read_config: Callable[[], Config],
    run_dir: Path,
    overrides: Sequence[str],
    multirun: bool,
    signals: Signals,
) -> float | None:
    try:
        config = read_config()
        from convtrain.runs.report import print_line, print_report

        if multirun:
            result = run_once(_train_as_one_of_many, config, run_dir, overrides, signals)
        else:
            result = _finished_result(config, run_dir) or _train(
                config, run_dir, overrides, signals
            )
    except LeftAloneError as left_alone:
        log.warning("%s", left_alone)
        status = left_alone.exit_status
    except ConvtrainError as error:
        log.error("%s", error, exc_info=os.environ.get("HYDRA_FULL_ERROR") == "1")
        if error.__cause__ is not None:  # the log has what the terminal is spared
            logging.getLogger("traceback").error("%s", "".join(format_exception(error.__cause__)))
        RunDirectory(run_dir).fail(str(error), overrides)
        status = error.exit_status
    except Exception as error:
        log.error("%s", line_on_full_disk(error, run_dir) or traceback.format_exc())
        RunDirectory(run_dir).fail(f"{type(error).__name__}: {error}", overrides)
        status = 1
    else:
        if multirun:
            print_line(result, overrides)
        elif _is_main_process():
            print_report(result, run_dir=run_dir, overrides=overrides, style=config.model.style)
        return result.get(config.sweep.metric)
    if not multirun:
        sys.exit(status)
    return None


def _train(
    config: Config, run_dir: Path, overrides: Sequence[str], signals: Signals
) -> dict[str, Any]:
    with imports_kept():
        _quiet_libraries()
        from convtrain.pipeline import train

    return train(config, run_dir, overrides, signals)


def _train_as_one_of_many(
    config: Config, run_dir: Path, overrides: Sequence[str], signals: Signals
) -> dict[str, Any]:
    share_threads()
    return _train(config, run_dir, overrides, signals)


def _report_interruption(interrupted: Interrupted, run_dir: Path, multirun: bool) -> None:
    """Say how to go on; in a sweep, show what the jobs have come to."""
    if not _is_main_process():
        return
    if interrupted.signum == getattr(signal, "SIGUSR1", None):
        requeue_slurm_job()
    if multirun:
        from convtrain.sweeps.callback import close_sweep

        close_sweep(run_dir.parent)
    if any(RunDirectory(run_dir).checkpoints.glob("*.ckpt")):
        log.warning("stopped by %s; to go on: python train.py resume=%s", interrupted, run_dir)
    else:
        log.warning("stopped by %s before anything was saved", interrupted)


def _tells_status() -> bool:
    """Tell whether whoever started this process wants its exit status.

    Lightning kills the main process if one that it has started itself does not end with 0.
    """
    return _is_main_process() or "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ


def _finished_result(config: Config, run_dir: Path) -> dict[str, Any] | None:
    """Return the result of a run that is resumed though nothing is left to do."""
    result = RunDirectory(run_dir).read_result() if config.resume else None
    if result is None:
        return None
    limit = config.trainer.max_steps
    done = result["epochs"] >= config.trainer.max_epochs or (limit and result["steps"] >= limit)
    if done:
        log.warning("%s is finished; to train longer, add trainer.max_epochs=N", run_dir)
    return result if done else None


def _is_main_process() -> bool:
    return int(os.environ.get("LOCAL_RANK", 0)) == 0 and int(os.environ.get("NODE_RANK", 0)) == 0


def _quiet_libraries() -> None:
    """Keep libraries' notices out of the terminal; the log file has them."""
    import pytorch_lightning  # noqa: F401  (sets up its logger when it is imported)

    for name in ("pytorch_lightning", "lightning", "lightning.pytorch", "lightning.fabric"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.raiseExceptions = False  # a full disk is one line, not one for each writer it stops
    threading.excepthook = _report_thread
    logging.captureWarnings(True)
    warnings.filterwarnings("default", module="pytorch_lightning")
    logging.getLogger("py.warnings").setLevel(logging.WARNING)


def _report_thread(failed: threading.ExceptHookArgs) -> None:
    """Leave a full disk, which stops TensorBoard's thread, to the training that meets it next."""
    if failed.exc_value is None or line_on_full_disk(failed.exc_value, Path()) is None:
        threading.__excepthook__(failed)
