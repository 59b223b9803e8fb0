"""Processes that make the images of the next batches while the model works on this one."""

import contextlib
import mmap
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from multiprocessing import current_process, get_context, parent_process
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from convtrain.data.images import Images
from convtrain.data.per_image import PerImage
from convtrain.data.sampling import image_of
from convtrain.errors import TrainingError
from convtrain.process.hardware import cores
from convtrain.process.signals import STOP_SIGNALS

FORKS = sys.platform == "linux"  # other start methods run the user's script again in each worker
MAX_WORKERS = 16  # that are started unasked

Key = tuple[int, bytes]  # the epoch and the draws of a request


class Slot(NamedTuple):
    """Memory that is shared with the workers, for the images of one request."""

    pixels: Tensor | None  # what is stored; None if the workers read it
    results: Tensor


class Request(NamedTuple):
    slot: int
    parts: list["Future[None]"]


def worker_count(asked: int | Literal["auto"], processes: int = 1) -> int:
    """Return the number of workers of one of the processes that train on this machine."""
    if asked != "auto":
        return asked
    if current_process().daemon:  # may not have child processes
        return 0
    return min(max(cores() // processes, 1), MAX_WORKERS)


class TransformedImages:
    """Reads images on the CPU; crops and transforms each by itself.

    The results do not depend on the number of workers.

    Args:
        images: those with pixels on the CPU; their labels are where the results are wanted.
        per_image: makes the results of their pixels.
        workers: processes; 0 makes the results in this process, when an image is read.
        most: images of one request.
        ahead: requests that are announced and not yet read.
    """

    def __init__(
        self,
        images: Images,
        per_image: PerImage,
        *,
        seed: int,
        workers: int,
        most: int,
        ahead: int,
    ) -> None:
        self.device = images.labels.device
        self.per_image, self.seed = per_image, seed
        self.workers = min(workers, most)
        self._most, self._ahead = most, ahead
        self._slots: list[Slot] = []
        self._pool: ProcessPoolExecutor | None = None
        self._pending: dict[Key, Request] = {}

    def expect(self, draws: Tensor, epoch: int) -> None:
        """Announce the next read, so that the workers make these images."""
        key = (epoch, draws.numpy().tobytes())
        if not self.workers or key in self._pending:
            return
        pool = self._pool or self._start()
        if len(self._pending) == self._ahead:  # an epoch was left before its end
            stale = self._pending.pop(next(iter(self._pending)))
            wait([part for part in stale.parts if not part.cancel()])
        number = (set(range(self._ahead)) - {r.slot for r in self._pending.values()}).pop()
        count, listed = len(draws), draws.tolist()
        if (originals := self._slots[number].pixels) is not None:
            originals[:count].copy_(self.per_image.read(image_of(draws)))
        ends = [count * part // self.workers for part in range(self.workers + 1)]
        parts = [
            pool.submit(_make_part, number, first, listed[first:last], self.seed, epoch)
            for first, last in pairwise(ends)
            if last > first
        ]
        self._pending[key] = Request(number, parts)

    def read(self, draws: Tensor, epoch: int) -> Tensor:
        """Return the transformed images, uint8 or float32, on the labels' device.

        On the CPU they are valid until the next request is announced.
        """
        key = (epoch, draws.numpy().tobytes())
        if key in self._pending:
            pixels = self._take(key)[: len(draws)]
        else:
            sized = self.per_image.is_sized
            originals = None if sized else self.per_image.read(image_of(draws))
            pixels = self.per_image(originals, draws.tolist(), seed=self.seed, epoch=epoch)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # makes the copy asynchronous
        return pixels.to(self.device, non_blocking=True)

    def close(self) -> None:
        """End the workers; a later read starts them again."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._pending, self._slots = None, {}, []

    def _take(self, key: Key) -> Tensor:
        slot, parts = self._pending.pop(key)
        wait(parts)
        try:
            for part in parts:
                part.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "augment.workers: a process that transforms images was killed; was the memory "
                "full? set fewer, and type resume=auto"
            ) from error
        return self._slots[slot].results

    def _start(self) -> ProcessPoolExecutor:
        made = self.per_image
        shape = (self._most, *made.shape)
        assert made.dtype is not None
        for _ in range(self._ahead):
            originals = None if made.is_sized else shared(shape, torch.uint8)
            self._slots.append(Slot(originals, shared(shape, made.dtype)))
        self._pool = ProcessPoolExecutor(
            self.workers,
            mp_context=get_context("fork" if FORKS else "spawn"),
            initializer=_begin,
            initargs=(made, self._slots),
        )
        with warnings.catch_warnings():  # Python 3.12 warns of threads, which a worker never uses
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pool.submit(int).result()
        return self._pool


def shared(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if not FORKS:
        return torch.empty(shape, dtype=dtype).share_memory_()
    count = torch.Size(shape).numel()
    # Unlike torch's shared memory, this is not limited by the size of /dev/shm.
    memory = mmap.mmap(-1, count * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(*shape)


_worker: tuple[PerImage, list[Slot]]
"""What a worker process works with."""


def _begin(per_image: PerImage, slots: list[Slot]) -> None:
    global _worker  # a process pool hands nothing else to its functions
    _worker = (per_image, slots)
    torch.set_num_threads(1)
    for signum in STOP_SIGNALS:  # sent to all processes; the parent ends its workers
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    with contextlib.suppress(OSError):
        parent.join()
    os._exit(1)


def _make_part(slot: int, first: int, draws: list[int], seed: int, epoch: int) -> None:
    per_image, slots = _worker
    part = slice(first, first + len(draws))
    originals, results = slots[slot]
    per_image(
        None if originals is None else originals[part],
        draws,
        seed=seed,
        epoch=epoch,
        out=results[part],
    )
