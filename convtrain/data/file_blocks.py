"""Blocks of decoded image files, made on all cores; one error names all files that are refused."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from convtrain.data.blocks import AHEAD, BLOCK_BYTES, make_blocks, naming_killed_workers
from convtrain.data.decoding import by_our_rules
from convtrain.data.workers import shared
from convtrain.errors import CorruptDataError, one_line
from convtrain.process.hardware import cores

log = logging.getLogger("convtrain")

MIN_BLOCKS_FOR_WORKERS = 5
MAX_NAMED = 10  # files in one message

Refused = tuple[Path, str]
"""A file that cannot be used, and the reason."""

Made = TypeVar("Made")

Write = Callable[[Path, int, np.ndarray], None]
"""Decodes the file of a position into the memory of its image, uint8 (bytes,)."""


class FileBlocks(Dataset[Made | list[Refused]]):
    """Blocks of consecutive files; a block with refused files is the list of these.

    It is no exception, because a DataLoader wraps the exceptions of its workers in its own.

    ``make(files, index, refused)`` makes a block, and adds the files that cannot be used.
    """

    def __init__(
        self,
        files: Sequence[Path],
        length: int,
        make: Callable[[Sequence[Path], int, list[Refused]], Made],
    ) -> None:
        self.files, self.length, self.make = files, length, make

    def __len__(self) -> int:
        return math.ceil(len(self.files) / self.length)

    def __getitem__(self, index: int) -> Made | list[Refused]:
        refused: list[Refused] = []
        with by_our_rules():
            made = self.make(
                self.files[index * self.length : (index + 1) * self.length], index, refused
            )
        return refused or made


def decode_all(
    files: Sequence[Path], bytes_of: Tensor, write: Write, memory: Tensor | None = None
) -> Iterator[np.ndarray]:
    """Decode files in order; yield the bytes of several images at a time, uint8 (bytes,).

    Worker processes write into memory that they share with this one. Errors are those of
    :func:`make_all`.

    Args:
        bytes_of: of each image, int64 (N,).
        memory: of all images, made by :func:`~convtrain.data.workers.shared`; by default, what is
            yielded is valid until the next block.
    """
    length = max(BLOCK_BYTES * len(files) // max(int(bytes_of.sum()), 1), 1)
    sizes = torch.stack([part.sum() for part in bytes_of.split(length)])
    starts = sizes.cumsum(0) - sizes
    if memory is None:
        slots = AHEAD * max(decoding_workers(len(sizes)), 1) + 1
        memory = shared((slots * int(sizes.max()),), torch.uint8)
        starts = torch.arange(len(sizes)) % slots * sizes.max()
    make = partial(_write_block, memory, starts, bytes_of, length, write)
    for index, _ in enumerate(make_all(FileBlocks(files, length, make))):
        yield memory[starts[index] : starts[index] + sizes[index]].numpy()


def _write_block(
    memory: Tensor, starts: Tensor, bytes_of: Tensor, length: int, write: Write,
    files: Sequence[Path], index: int, refused: list[Refused],
) -> None:  # fmt: skip
    parts = bytes_of[index * length :][: len(files)].tolist()
    images = memory[starts[index] :][: sum(parts)].split(parts)
    for position, (path, image) in enumerate(zip(files, images, strict=True), index * length):
        try:
            write(path, position, image.numpy())
        except CorruptDataError as error:
            refused.append((path, str(error)))


def make_all(blocks: FileBlocks[Made]) -> Iterator[Made]:
    """Yield the blocks of files in order, made by one process for each core.

    After the first refused file, the rest are checked but not yielded, so that one
    CorruptDataError names all of them. A TrainingError says that a worker process was killed.
    """
    files = blocks.files
    workers = decoding_workers(len(blocks))
    done, refused = 0, list[Refused]()

    def killed() -> str:
        return (
            f"{files[done]}: a process that decodes images was killed here or a little further, "
            f"after {done} of {len(files)} images; was the memory full? try again"
        )

    with naming_killed_workers(killed):
        for block in make_blocks(blocks, workers):
            done += blocks.length
            if isinstance(block, list):
                if not refused:
                    log.warning("%s; looking at the other images", complaint(block[:1]))
                refused += block
            elif not refused:
                yield block
    if refused:
        raise CorruptDataError(complaint(refused))


def decoding_workers(blocks: int) -> int:
    """Return the number of processes that decode so many blocks; 0 is this one."""
    return min(cores(), blocks) if blocks >= MIN_BLOCKS_FOR_WORKERS else 0


def complaint(refused: Sequence[Refused]) -> str:
    """Return the line about files that cannot be used: the first ones, and a number."""
    reasons: dict[str, list[str]] = {}
    for path, reason in refused[:MAX_NAMED]:
        reasons.setdefault(reason, []).append(str(path))
    named = "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in reasons.items())
    if len(refused) == 1:
        return one_line(named)
    more = f"; and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
    return one_line(f"{len(refused)} images cannot be used: {named}{more}")
