"""One training as a job of Hydra's: its report, its errors, its exit status."""

import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convtrain.config.schema import Config
from convtrain.errors import ConvtrainError
from convtrain.files import line_on_full_disk
from convtrain.runs.directory import RunDirectory

log = logging.getLogger("convtrain")


def run_job(
    read_config: Callable[[], Config], *, run_dir: Path, overrides: Sequence[str], multirun: bool
) -> float | None:
    """Train, print the report, and return the validation accuracy for sweepers.

    What a user can mend is shown as one line, unless ``HYDRA_FULL_ERROR=1``; anything else with
    its traceback. Both stand in the run's log and in ``error.txt``. A single run then exits with
    status 2 for a wrong configuration and 1 for a failed training; in a sweep the other jobs go on.
    """
    try:
        config = read_config()
        _quiet_libraries()
        from convtrain.pipeline import train
        from convtrain.runs.report import print_line, print_report

        result = _finished_result(config, run_dir) or train(config, run_dir, overrides)
    except ConvtrainError as error:
        log.error("%s", error, exc_info=os.environ.get("HYDRA_FULL_ERROR") == "1")
        RunDirectory(run_dir).fail(str(error))
        status = error.exit_status
    except Exception as error:
        log.error("%s", line_on_full_disk(error, run_dir) or traceback.format_exc())
        RunDirectory(run_dir).fail(f"{type(error).__name__}: {error}")
        status = 1
    else:
        if multirun:
            print_line(result, overrides)
        elif _is_main_process():
            print_report(result, run_dir=run_dir, overrides=overrides, style=config.model.style)
        return result.get("val/acc")
    if not multirun:
        sys.exit(status)
    return None


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
