"""Importing the pipeline, and which notices of its libraries reach the terminal."""

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convtrain.process.atomic import line_on_full_disk
from convtrain.process.startup import imports_without_gc

NOISE = re.compile(r"💡 Tip|`Trainer\((limit_|val_check_interval)|TPU available")
"""Lightning's log records that help nobody: advertisements, defaults, absent devices."""

NOISY_WARNINGS = (
    ".*LeafSpec.* is deprecated",  # within Lightning
    "Checkpoint directory .* exists and is not empty",  # where a run is resumed
    "The number of training batches .* is smaller than the logging interval",
    ".*sync_dist=True",  # the task sums over the ranks itself
)
LIGHTNING = (
    "pytorch_lightning", "lightning_fabric", "lightning", "lightning.pytorch", "lightning.fabric",
)  # fmt: skip


@contextmanager
def importing_pipeline(*, quiet: bool = True) -> Iterator[None]:
    """Import torch and what needs it inside the block.

    Args:
        quiet: keep the libraries' notices out of the terminal, for the rest of the process.
    """
    with imports_without_gc():
        if quiet:
            quiet_libraries()
        yield


def quiet_libraries() -> None:
    """Send the libraries' notices to the log file, and drop the ones that help nobody."""
    import pytorch_lightning  # noqa: F401  (its import sets up the loggers that are changed here)

    for name in LIGHTNING:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        logging.getLogger(f"{name}.utilities.rank_zero").addFilter(_is_useful)
    logging.raiseExceptions = False  # a full disk is one line, not one for each writer it stops
    threading.excepthook = _report_thread
    logging.captureWarnings(True)
    warnings.filterwarnings("default", module="pytorch_lightning")
    for message in NOISY_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("py.warnings").setLevel(logging.WARNING)


def _is_useful(record: logging.LogRecord) -> bool:
    return NOISE.search(record.getMessage()) is None


def _report_thread(failed: threading.ExceptHookArgs) -> None:
    """Stay silent when a full disk ends TensorBoard's thread: the training reports the disk."""
    if failed.exc_value is None or line_on_full_disk(failed.exc_value, Path()) is None:
        threading.__excepthook__(failed)
