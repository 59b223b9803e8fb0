"""How a command starts and ends: heavy imports, Ctrl-C, the environment, the last collection."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from convtrain.process.output import prepare_output


@contextmanager
def running_as_command() -> Iterator[None]:
    """Prepare this process for a command, and end it with one line if Ctrl-C comes early."""
    prepare_output()
    skip_last_collection()
    try:
        yield
    except KeyboardInterrupt:  # a training that has started answers the signal itself
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(130)


def skip_last_collection() -> None:
    """Let the interpreter end without a garbage collection.

    After a training it searches the million objects of torch and Lightning, which takes 1.1 s of
    CPU time, and finds nothing that the end of the process does not free. Everything else that
    belongs to the end, such as the exit handlers of coverage and profilers, happens as usual.
    """
    atexit.register(gc.freeze)


@contextmanager
def imports_without_gc() -> Iterator[None]:
    """Import inside the block without garbage collections.

    The objects that torch and Lightning create live as long as the process, and searching them
    again and again takes a quarter of the import time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def environment_restored() -> Iterator[None]:
    """Undo after the block what it has changed in the environment."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
