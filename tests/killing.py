"""A training that is killed for real, with SIGKILL, without starting an interpreter for it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from convtrain import pipeline
from convtrain.config.schema import Config
from convtrain.run.directory import Run
from convtrain.training import checkpoint_file
from convtrain.training.loggers.tensorboard import TensorBoard
from convtrain.training.task import Task


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nth_call(number: int, then: Callable[[], None], function: Callable[..., Any]) -> Any:
    """Wrap a function so that its ``number``-th call, from 0, does something else first."""
    calls = iter(range(10**9))

    def wrapped(*args: Any, **options: Any) -> Any:
        if next(calls) == number:
            then()
        return function(*args, **options)

    return wrapped


PLACES: dict[str, tuple[Any, str]] = {
    "batch": (Task, "training_step"),
    "step's end": (Task, "on_train_batch_end"),
    "validation": (Task, "validation_step"),
    "validation's end": (Task, "on_validation_end"),
    "epoch's end": (Task, "on_train_epoch_end"),
    "checkpoint's write": (checkpoint_file._Archive, "_write_hashed"),
    "checkpoint's end": (checkpoint_file._Archive, "finish"),
    "test": (Task, "test_step"),
    "test's log": (Task, "on_test_epoch_end"),
    "figure": (SummaryWriter, "add_figure"),
    "hyperparameters": (TensorBoard, "log_results"),
    "closing": (TensorBoard, "finalize"),
    "result": (Run, "finish"),
}


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Append the indices of every training batch to a file."""
    step = Task.training_step

    def recording(self: Task, batch: Any, batch_idx: int) -> Any:
        with path.open("ab") as file:
            file.write(np.array([self.current_epoch, batch_idx, *batch.indices], "<i4").tobytes())
        return step(self, batch, batch_idx)

    with mock.patch.object(Task, "training_step", recording):
        yield


WRITES = ("replace", "rename", "link", "unlink", "fsync")
"""Functions of os after which, or before which, the files are others than they will be."""


@contextmanager
def calling_at_writes(at: Callable[[int], None]) -> Iterator[None]:
    """Call ``at(number)`` before and after each write, in whatever thread; numbers begin with 0."""
    calls, patches = iter(range(10**9)), ExitStack()
    for name in WRITES:
        plain = getattr(os, name)

        def around(*args: Any, plain: Any = plain, **options: Any) -> Any:
            at(next(calls))
            result = plain(*args, **options)
            at(next(calls))
            return result

        patches.enter_context(mock.patch.object(os, name, around))
    with patches:
        yield


def killed_at_write(train: Callable[[], Any], number: int) -> bool:
    """Call a training in a process that is killed at a write; return whether it came there."""

    def at(here: int) -> None:
        if here == number:
            kill()

    child = os.fork()
    if child == 0:
        status = 1
        try:
            with calling_at_writes(at):
                train()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the training failed with status {status}"
    return status == signal.SIGKILL


def train_until_killed(
    config: Config, run_dir: Path, samples: Path, place: str, number: int
) -> bool:
    """Train in a process that is killed at the ``number``-th time it comes to a place.

    Returns:
        whether it came there; else the training is finished.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            owner, name = PLACES[place]
            with recorded(samples):
                deadly = nth_call(number, kill, getattr(owner, name))
                with mock.patch.object(owner, name, deadly):
                    pipeline.train(config, run_dir)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the training failed with status {status}"
    return status == signal.SIGKILL
