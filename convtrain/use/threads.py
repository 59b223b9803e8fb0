"""The number of CPU threads of a run, on which the last bits of its numbers depend."""

import os
import sys
from contextlib import suppress

from convtrain.errors import CorruptDataError
from convtrain.run.directory import Run


def threads_of(run: Run) -> int | None:
    """Return the number of threads of torch that a run has recorded, or None."""
    with suppress(CorruptDataError):
        threads = run.read_provenance().get("threads")
        if isinstance(threads, int) and threads > 0:
            return threads
    return None


def use_threads_of(run: Run) -> None:
    """Use a run's number of threads in this process and in those that it starts."""
    if (threads := threads_of(run)) is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # torch reads it on import
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(threads)
