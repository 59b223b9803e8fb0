"""Batches of any number of image files, which other processes decode into shared memory."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from convtrain.data.blocks import make_blocks, naming_killed_workers
from convtrain.data.decoding import Rules, by_our_rules, decode
from convtrain.data.workers import shared, worker_count
from convtrain.errors import CorruptDataError, one_line

PART = 64  # files that a worker decodes at once
AHEAD = 2  # batches that are decoded while another one is used


class FileBatch(NamedTuple):
    """Consecutive files."""

    paths: list[str]
    refused: dict[int, str]  # position in ``paths`` of a file that cannot be used, and the reason
    pixels: Tensor  # uint8 of the others (n, channels, height, width), until the next batch is made


def decode_batches(
    paths: Iterable[str], rules: Rules, *, batch_size: int, workers: int | None = None
) -> Iterator[FileBatch]:
    """Yield the files in order, ``batch_size`` at a time, decoded as for a training.

    Args:
        paths: is read a few batches ahead.
        workers: processes that decode; 0 decodes in this one. By default, one for each core if
            there are more than ``PART`` files.

    Raises:
        TrainingError: a worker process was killed.
    """
    paths = iter(paths)
    head = list(islice(paths, PART + 1))
    if workers is None:
        workers = worker_count("auto") if len(head) > PART else 0
    Image.preinit()  # imports Pillow's decoders once for all workers
    parts = math.ceil(batch_size / PART)
    ahead = max(math.ceil(AHEAD * parts / max(workers, 1)), 2)
    slots = 1 + math.ceil(ahead * workers / parts)
    pixels = shared((slots, batch_size, *rules.shape), torch.uint8)
    sent = deque[list[str]]()
    keys = _Keys(chain(head, paths), batch_size, slots, sent)
    slot, done, refused = 0, 0, dict[int, str]()

    def killed() -> str:
        return (
            f"{one_line(sent[0][0])}: a process that decodes images was killed here or a little "
            f"further; was the memory full?"
        )

    with naming_killed_workers(killed):
        for reasons in make_blocks(_Parts(pixels, rules), workers, keys, ahead):
            refused |= reasons
            done += PART
            if done >= len(sent[0]):
                batch = sent.popleft()
                good = [i for i in range(len(batch)) if i not in refused] if refused else None
                held = pixels[slot, : len(batch)]
                yield FileBatch(batch, refused, held if good is None else held[good])
                slot, done, refused = (slot + 1) % slots, 0, {}


class _Part(NamedTuple):
    slot: int
    first: int  # position of its first file in the batch
    paths: list[str]


class _Keys(Iterable[_Part]):
    """The parts of all batches, each of which is stored in ``sent`` when it begins."""

    def __init__(
        self, paths: Iterator[str], batch_size: int, slots: int, sent: deque[list[str]]
    ) -> None:
        self.paths, self.batch_size, self.slots, self.sent = paths, batch_size, slots, sent

    def __iter__(self) -> Iterator[_Part]:
        slot = 0
        while batch := list(islice(self.paths, self.batch_size)):
            self.sent.append(batch)
            for first in range(0, len(batch), PART):
                yield _Part(slot, first, batch[first : first + PART])
            slot = (slot + 1) % self.slots


class _Parts(Dataset[dict[int, str]]):
    """Decodes a part of a batch into its slot; returns the refused files."""

    def __init__(self, pixels: Tensor, rules: Rules) -> None:
        self.pixels, self.rules = pixels, rules

    def __getitem__(self, part: _Part) -> dict[int, str]:
        images: np.ndarray = self.pixels[part.slot].numpy()
        refused = {}
        with by_our_rules():
            for index, path in enumerate(part.paths, start=part.first):
                try:
                    images[index] = decode(path, self.rules)
                except CorruptDataError as error:
                    refused[index] = _reason(error)
        return refused


def _reason(error: CorruptDataError) -> str:
    cause = error.__cause__  # such as that there is no such file
    return (isinstance(cause, OSError) and cause.strerror) or str(error)
