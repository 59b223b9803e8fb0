"""Heavy imports, and the end of a process that made them, without looking through all they left."""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_kept() -> Iterator[None]:
    """Import inside the block without collections.

    torch and Lightning leave over a million objects behind, all of which stay until the process
    ends. Looking through them again and again takes a quarter of the time of importing.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process after the block as soon as everybody who asked for it has tidied up.

    The interpreter would go on to take apart what torch and Lightning built, object by object,
    for seconds. Threads are waited for and exit handlers are called as ever: this one, which was
    registered first, is the last of them. To be used around all that a script does.
    """
    status = 1

    def end() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue
        os._exit(status)

    atexit.register(end)
    try:
        yield
        status = 0
    except SystemExit as leaving:
        if isinstance(leaving.code, int) or leaving.code is None:
            status = leaving.code or 0
        raise
    except KeyboardInterrupt:  # before there was anything to save
        print("stopped by SIGINT", file=sys.stderr)
        status = 130
