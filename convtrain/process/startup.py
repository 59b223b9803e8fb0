"""Start and end of a command: imports, Ctrl-C before the training, environment, collection."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path

from convtrain.process.output import keep_output_open

PLUGINS = "hydra_plugins"  # Hydra imports every module of this namespace
CLONE = str(Path(__file__).resolve().parents[2])  # or site-packages


@contextmanager
def running_as_command() -> Iterator[None]:
    """Prepare this process to run a command; exit with one line at a Ctrl-C before the training."""
    keep_output_open()
    import_from_cwd()
    os.environ["MPLBACKEND"] = "agg"  # a backend that a notebook set may not be installed
    skip_last_collection()
    try:
        yield
    except KeyboardInterrupt:  # a training that has started handles the signal itself
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(130)


def import_from_cwd() -> None:
    """Make the working directory importable, so that ``trust=[mypackage]`` finds ``./mypackage``.

    It comes last in ``sys.path``, also where ``python -m`` has put it first: libraries import
    modules late and by common names, and ``./random.py`` or ``./datasets`` must not replace
    theirs. ``./hydra_plugins`` is not imported at all. A clone stays where ``python train.py`` has
    put it, because this package may be found there alone.
    """
    try:
        here = os.getcwd()  # noqa: PTH109 (as in sys.path)
    except OSError:
        return  # reported by the command line
    if here != CLONE and sys.path[:1] in ([here], [""]):
        del sys.path[0]
    spec = find_spec(PLUGINS) or ModuleSpec(PLUGINS, None, is_package=True)
    plugins = sys.modules.setdefault(PLUGINS, module_from_spec(spec))
    found = spec.submodule_search_locations or ()
    plugins.__path__ = [path for path in found if Path(path).parent != Path(here)]  # for good
    if here not in sys.path:
        sys.path.append(here)


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
