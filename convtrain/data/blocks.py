"""Blocks of images that worker processes make, in an order that does not depend on the workers."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convtrain.errors import TrainingError
from convtrain.process.signals import STOP_SIGNALS

BLOCK_BYTES = 1 << 20  # that a worker returns at once
AHEAD = 2  # blocks that each worker begins before they are taken

Block = TypeVar("Block")


def make_blocks(
    blocks: Dataset[Block],
    workers: int,
    keys: Iterable[object] | None = None,
    ahead: int = AHEAD,
) -> DataLoader[Block]:
    """Return an iterable of all blocks in order; without workers this process makes them.

    Args:
        keys: what to call ``blocks[key]`` with; by default, 0 to its length.
        ahead: blocks that each worker may begin before they are taken.
    """
    return DataLoader(
        blocks,
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        collate_fn=_unchanged,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # torch's default generator draws the weights
        # The other start methods run the user's script again in each worker.
        multiprocessing_context="fork" if sys.platform == "linux" and workers else None,
    )


@contextmanager
def naming_killed_workers(explain: Callable[[], str]) -> Iterator[None]:
    """Raise a TrainingError with the text of ``explain`` if a worker of the blocks is killed."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(explain()) from error


def gather(blocks: Iterable[np.ndarray], shape: tuple[int, ...]) -> Tensor:
    """Copy blocks of images into one uint8 tensor of this shape."""
    # torch allocates: numpy asks for huge pages, which take far longer on a virtual machine.
    pixels, start = torch.empty(shape, dtype=torch.uint8), 0
    # numpy copies: the threads with which torch copies take the cores from the workers.
    copied = pixels.numpy()
    for block in blocks:
        copied[start : start + len(block)] = block
        start += len(block)
    return pixels


def _unchanged(block: Block) -> Block:
    return block


def _ignore_signals(_: int) -> None:
    """Leave Ctrl-C to the parent: the terminal sends it to every process."""
    for signum in STOP_SIGNALS:
        ended_by_parent = signum == signal.SIGTERM
        signal.signal(signum, signal.SIG_DFL if ended_by_parent else signal.SIG_IGN)
