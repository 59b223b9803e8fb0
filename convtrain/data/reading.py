"""Read a map-style dataset once, item by item, into 8-bit images and targets."""

import contextlib
import logging
import math
import random
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from convtrain.config.mistakes import brief
from convtrain.data.blocks import BLOCK_BYTES, make_blocks, naming_killed_workers
from convtrain.data.items import ItemRules, Target, read_item
from convtrain.data.randomness import derive_seed
from convtrain.errors import ConfigError, CorruptDataError, error_line, one_line
from convtrain.text import make_console

log = logging.getLogger("convtrain")

SECONDS_BETWEEN_LINES = 10.0
MAX_BLOCK = 32  # items, so that a progress line is not late
BEFORE = -1  # as an index: the random numbers of a dataset's constructor


class MapStyle(Protocol):
    """A dataset that is indexed, whichever class it derives from."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> object: ...


class _Block(NamedTuple):
    pixels: np.ndarray | list[np.ndarray]
    targets: list[Target]
    refused: str | None = None  # why the item after these cannot be used


def check_map_style(dataset: object, where: str) -> MapStyle:
    """Return a dataset that can be indexed and is not empty; ConfigError otherwise."""
    if isinstance(dataset, IterableDataset):
        raise ConfigError(
            f"{where}: is an IterableDataset, whose items have no index; convtrain draws the order "
            f"of images from the seed, so give a map-style dataset with __getitem__ and __len__"
        )
    try:
        count = len(dataset)  # type: ignore[arg-type]
        if not hasattr(dataset, "__getitem__"):
            raise TypeError("it has no __getitem__")
    except Exception as error:  # a user's code may raise anything
        raise ConfigError(
            f"{where}: {type(dataset).__name__} is no map-style dataset with __getitem__ and "
            f"__len__: {error_line(error)}"
        ) from error
    if count == 0:
        raise ConfigError(f"{where}: has no items")
    return dataset  # type: ignore[return-value]


@contextlib.contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed the global random numbers of Python, numpy and torch, and restore them afterwards.

    So neither the number of random numbers that a dataset draws nor the process that reads it
    changes the weights, and the dataset is the same in each process and after a resume.
    """
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([]):
        try:
            _seed_all(seed, BEFORE)
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def read_blocks(
    dataset: MapStyle,
    rules: ItemRules,
    targets: list[Target],
    *,
    where: str,
    seed: int,
    workers: int = 0,
) -> Iterator[np.ndarray]:
    """Read all items in order; yield blocks of images, uint8 of shape (n, *rules.shape).

    With ``store_size``, a block is a list of images (height, width, channels).

    Each item is read with random numbers that follow from (seed, index).

    Args:
        targets: is extended by the targets of each block.
        where: the override that named the dataset, for errors.
        workers: processes that read; 0 reads in this one.

    Raises:
        CorruptDataError: an item cannot be used; the message has its index.
        TrainingError: a worker process was killed.
    """
    count, began = len(dataset), time.monotonic()
    said = began
    blocks = _Blocks(dataset, rules, seed)

    def killed() -> str:
        return (
            f"{where}: a process that reads items was killed after item {len(targets)} of {count}; "
            f"was the memory full? try data.read_workers=0"
        )

    with naming_killed_workers(killed):
        for block in make_blocks(blocks, min(workers, len(blocks))):
            targets += block.targets
            if block.refused is not None:
                raise CorruptDataError(
                    f"{where}: item {len(targets)} of {count}: {one_line(block.refused)}"
                )
            yield block.pixels
            if (now := time.monotonic()) - said > SECONDS_BETWEEN_LINES and len(targets) < count:
                said = now
                left = (now - began) * (count / len(targets) - 1)
                _report(f"{where}: read {len(targets)} of {count} items, about {left:.0f} s left")


def warn_if_random(dataset: MapStyle, rules: ItemRules, where: str) -> None:
    """Warn if the first item depends on random numbers, because it is read only once."""
    images = []
    with contextlib.suppress(Exception):  # an item that cannot be used is reported when it is read
        for seed in (0, 1):
            with own_randomness(seed):
                images.append(read_item(dataset[0], rules)[0])
    if len(images) == 2 and not np.array_equal(images[0], images[1]):
        rank_zero_only(log.warning)(
            "%s: item 0 is another image each time; items are read once, so what is random in the "
            "dataset is the same in every epoch; the group augment changes images anew", where,
        )  # fmt: skip


def as_labels(targets: list[Target], where: str) -> Tensor:
    """Return class indices, int64 (N,), or the vectors of all items, float32 (N, classes)."""
    kinds = {isinstance(target, int) for target in targets}
    if len(kinds) == 2:
        first = isinstance(targets[0], int)
        other = next(i for i, target in enumerate(targets) if isinstance(target, int) != first)
        raise CorruptDataError(
            f"{where}: the target of item 0 is {_described(targets[0])}, that of item {other} "
            f"{_described(targets[other])}; all must be of one kind"
        )
    if kinds == {True}:
        return torch.tensor(targets, dtype=torch.int64)
    return torch.from_numpy(np.stack(targets))


def _described(target: Target) -> str:
    return (
        f"the class {target}" if isinstance(target, int) else f"a vector {brief(target.tolist())}"
    )


@rank_zero_only
def _report(line: str) -> None:
    """Show progress; the terminal shows no other messages than warnings."""
    log.info(line)
    make_console(stderr=True).print(line)


class _Blocks(Dataset[_Block]):
    """Blocks of items. A refused item is part of a block: DataLoader rewraps a worker's errors."""

    def __init__(self, dataset: MapStyle, rules: ItemRules, seed: int) -> None:
        self.dataset, self.rules, self.seed = dataset, rules, seed
        self.length = max(min(BLOCK_BYTES // math.prod(rules.shape), MAX_BLOCK), 1)

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.length)

    def __getitem__(self, index: int) -> _Block:
        first = index * self.length
        indices = range(first, min(first + self.length, len(self.dataset)))
        pixels: np.ndarray | list[np.ndarray] = []
        if self.rules.store_size is None:
            pixels = np.empty((len(indices), *self.rules.shape), dtype=np.uint8)
        targets: list[Target] = []
        for place, item in enumerate(indices):
            try:
                _seed_all(self.seed, item)
                image, target = read_item(self.dataset[item], self.rules)
                if isinstance(pixels, list):
                    pixels.append(image)
                else:
                    pixels[place] = image
                targets.append(target)
            except CorruptDataError as error:
                return _Block(pixels, targets, str(error))
            except (Exception, SystemExit) as error:  # a user's code may raise anything
                return _Block(pixels, targets, f"cannot be read: {error_line(error)}")
        return _Block(pixels, targets)


def _seed_all(*numbers: int) -> None:
    seed = derive_seed(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
