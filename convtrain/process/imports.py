"""Heavy imports, and the end of a process that made them, without looking through all they left."""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
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

    The interpreter would go on to take apart what torch and Lightning built, object by object, for
    seconds. Threads are waited for and exit handlers are called as ever: ours, which is the first
    that this program registers, is the last of them. Where a tool was there before, such as
    ``coverage run``, its handler comes after ours, so the interpreter ends as usual, but does not
    collect garbage on the way. To be used around all that a script does.
    """
    status = 1

    def end() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                continue
        os._exit(status)

    atexit.register(gc.freeze if _handlers_of_tools() else end)
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
        raise SystemExit(status) from None


def _handlers_of_tools() -> list[Callable[..., object]]:
    """Return the exit handlers that come neither from Python's own library nor from ours.

    ``atexit`` has no list of its handlers; but it compares each with one that is to be removed.
    """
    found: list[Callable[..., object]] = []

    class Listener:
        def __eq__(self, handler: object) -> bool:
            module = str(getattr(handler, "__module__", None)).partition(".")[0]
            if callable(handler) and module not in {*sys.stdlib_module_names, "convtrain"}:
                found.append(handler)
            return False

        __hash__ = object.__hash__

        def __call__(self) -> None: ...

    atexit.unregister(Listener())
    return found
