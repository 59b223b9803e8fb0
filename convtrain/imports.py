"""Heavy imports without the garbage collector, which looks again and again and finds nothing."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_kept() -> Iterator[None]:
    """Import inside the block without collections, and keep what was imported out of later ones.

    torch and Lightning leave over a million objects behind, all of which stay until the process
    ends. Looking through them takes a quarter of the time of importing, and most of the time that
    the interpreter needs to end.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
