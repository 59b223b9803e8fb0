"""Start and end of a command: Ctrl-C before the training, the environment, garbage collection."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from convtrain.process.output import keep_output_open


@contextmanager
def running_as_command() -> Iterator[None]:
    """Prepare this process to run a command; exit with one line at a Ctrl-C before the training."""
    keep_output_open()
    os.environ["MPLBACKEND"] = "agg"  # a backend that a notebook set may not be installed
    skip_last_collection()
    try:
        yield
    except KeyboardInterrupt:  # a training that has started handles the signal itself
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(130)


def skip_last_collection() -> None:
    """Skip the garbage collection at exit (1.1 s after a training), but no exit handlers."""
    atexit.register(gc.freeze)


@contextmanager
def imports_without_gc() -> Iterator[None]:
    """Switch off garbage collection in the block, where it takes a quarter of the import time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def environment_restored() -> Iterator[None]:
    """Restore ``os.environ`` after the block."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
