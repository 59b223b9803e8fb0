"""Give each process of a sweep a GPU of its own, by file locks."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from convtrain.process.hardware import VARIABLE
from convtrain.process.lock import take

log = logging.getLogger("convtrain")

FOLDER = ".gpus"  # in the sweep's directory
POLL_SECONDS = 0.1
_taken: dict[Path, tuple[str, BinaryIO]] = {}


def take_gpu(sweep: Path, gpus: Sequence[str]) -> None:
    """Make a GPU visible that no other process of the sweep has; wait until one is free.

    CUDA reads the variable only once, so a process keeps its GPU for all its jobs. The kernel
    releases the lock when the process ends, even if it is killed.
    """
    if sweep not in _taken:
        _taken[sweep] = _wait_for_one(sweep / FOLDER, gpus)
    os.environ[VARIABLE] = _taken[sweep][0]
    log.info("on GPU %s, of %s", _taken[sweep][0], ", ".join(gpus))


def _wait_for_one(folder: Path, gpus: Sequence[str]) -> tuple[str, BinaryIO]:
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for name in gpus:
            file = (folder / name.replace("/", "_")).open("a+b")
            if take(file):
                return name, file
            file.close()
        time.sleep(POLL_SECONDS)
