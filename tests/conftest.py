"""What most tests need: a run from a command line, without starting a process."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_command
from convtrain.command.job_config import resolve_config
from convtrain.command.resolvers import register_resolvers
from convtrain.config.schema import Config
from convtrain.run.result import Result
from tests.browser import browser  # noqa: F401, a fixture
from tests.quick_hydra import QUICK_WAYS, composing

REPOSITORY = Path(__file__).resolve().parents[1]
QUICK = (
    "trainer=cpu", "trainer.max_epochs=1", "callbacks.progress_bar=false", "callbacks.report=false",
)  # fmt: skip

register_resolvers()
# As in a shell whose environment is activated: what is printed says python, and not its path.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

Train = Callable[..., Result]


def compose(*overrides: str) -> Config:
    """Return the configuration that ``python train.py OVERRIDES`` would train."""
    (composed,) = compose_command(CommandLine(overrides=list(overrides)))
    return resolve_config(composed.config, overrides, composed.origin)


compose_once = cache(compose)  # of overrides that always come to the same; nothing changes a Config


def pytest_collection_finish() -> None:
    """Leave what is imported out of later collections, which take a tenth of the tests' time."""
    gc.collect()
    gc.freeze()


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the values of a parameter, of which all but the quick ones are slow tests."""
    return [v if v in quick else pytest.param(v, marks=pytest.mark.slow) for v in values]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Train in this process, one epoch unless told otherwise; the run lies in ``tmp_path/NAME``."""
    from convtrain.pipeline import train as run

    def train_now(*overrides: str, name: str = "run") -> Result:
        return run(compose(*QUICK, *overrides), tmp_path / name, overrides)

    return train_now


@pytest.fixture(autouse=True, scope="session")
def _hydra_is_quick() -> Iterator[None]:
    with composing(QUICK_WAYS):
        yield


@pytest.fixture(autouse=True, scope="session")
def _nothing_waits_for_the_disk() -> Iterator[None]:
    """A training syncs some twenty files; no test cuts the power, and killed processes sync."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _started_by_train_py(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed names the program that started this process, which is not pytest."""
    monkeypatch.setattr(sys, "argv", ["train.py"])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch  # here, because xdist's first process reads this file too, and runs no test

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    """A command that runs in this process makes loggers write to a terminal that pytest closes."""
    loggers = [logging.getLogger(), logging.getLogger("convtrain")]
    before = [(list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _no_process_group() -> Iterator[None]:
    """A strategy leaves its process group behind, and SyncBatchNorm then asks for a GPU."""
    import torch

    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def python() -> str:
    return sys.executable
