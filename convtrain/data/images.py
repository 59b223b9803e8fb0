"""Images in memory, and how they are divided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from convtrain.data.pixel_file import PixelFile
from convtrain.data.randomness import permutation
from convtrain.errors import ConfigError, few

BLOCK = 1 << 20  # bytes that are moved at once


@dataclass(frozen=True)
class Images:
    """A set of labelled images.

    Attributes:
        pixels: uint8 of shape (N, channels, height, width), in memory or in a file.
        labels: int64 of shape (N,), each a class index.
    """

    pixels: Tensor | PixelFile
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Tensor) -> Tensor:
        """Return the pixels of some images, uint8, on the device of the labels.

        Args:
            indices: int64, in the order wanted, on the device ``indexed_on``.
        """
        if not isinstance(self.pixels, PixelFile):
            return self.pixels.index_select(0, indices)
        pixels, device = self.pixels.read(indices), self.labels.device
        if device.type == "cuda":
            pixels = pixels.pin_memory()  # or the copy would wait for the device
        return pixels.to(device, non_blocking=True)

    def expect(self, indices: Tensor) -> None:
        """Tell which images are read next, so that a disk can fetch them meanwhile."""
        if isinstance(self.pixels, PixelFile):
            self.pixels.expect(indices)

    @property
    def indexed_on(self) -> torch.device:
        """Where indices must be: with a file, on the CPU."""
        return self.pixels.device if isinstance(self.pixels, Tensor) else torch.device("cpu")

    def pick(self, indices: Tensor) -> "Images":
        """Return some images, in memory."""
        return Images(self.read(indices), self.labels[indices])

    def part(self, places: slice) -> "Images":
        """Return the images at these places, without a copy."""
        if isinstance(self.pixels, PixelFile):
            return Images(self.pixels.part(places), self.labels[places])
        return Images(self.pixels[places], self.labels[places])

    def sample(self, count: int | None, seed: int) -> "Images":
        """Return ``count`` images, in memory; see :func:`sample_stratified`."""
        if count is None or count >= len(self):
            return self
        return self.pick(sample_stratified(self.labels, count, seed).to(self.indexed_on))

    def to(self, device: torch.device) -> "Images":
        """Move labels, and pixels that are in memory."""
        if isinstance(self.pixels, PixelFile):
            return Images(self.pixels, self.labels.to(device))
        return Images(self.pixels.to(device), self.labels.to(device))

    @property
    def resident_bytes(self) -> int:
        """What the pixels take in memory."""
        return 0 if isinstance(self.pixels, PixelFile) else self.pixels.numel()


@dataclass(frozen=True)
class Splits:
    """The images of a run.

    Attributes:
        tested: the split that ``test`` holds: ``val`` where a dataset has no images to test with.
    """

    train: Images
    val: Images
    test: Images
    tested: Literal["test", "val"] = "test"

    @property
    def images(self) -> tuple[Images, Images, Images]:
        return self.train, self.val, self.test


def split_stratified(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide images so that both parts have the classes in the same proportions.

    Args:
        labels: int64 of shape (N,).
        fraction: of the images that goes into the second part, at least one of every class.
        seed: of the split alone.

    Returns:
        The sorted indices of both parts, int64.

    Raises:
        ConfigError: a class has too few images to stand in both parts.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        if len(members) < 2:
            raise ConfigError(
                f"class {int(label)} has {len(members)} image; a split needs at least 2 of each"
            )
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        order = permutation(len(members), seed, int(label))
        chosen[members[order[:count]]] = True
    return (~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1)


def sample_stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Choose images so that the classes keep their proportions, and none is lost while it can be.

    A larger sample holds the smaller ones of the same seed.

    Args:
        labels: int64 of shape (N,).
        count: of images, at most N.

    Returns:
        The sorted indices, int64 of shape (count,).
    """
    turn = torch.empty(len(labels), dtype=torch.float64)
    classes = labels.unique().tolist()
    for label, tie in zip(classes, permutation(len(classes), seed, -1).tolist(), strict=True):
        members = (labels == label).nonzero().squeeze(1)
        order = permutation(len(members), seed, label)
        place = torch.arange(len(members), dtype=torch.float64) + (tie + 0.5) / len(classes)
        turn[members[order]] = place / len(members)
        turn[members[order[0]]] = place[0] / len(members) - 1  # one of each comes first
    return turn.argsort(stable=True)[:count].sort().values


def divide_labels(
    labels: Tensor,
    *,
    val_fraction: float | None,
    test_fraction: float | None,
    seed: int,
    names: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the indices of training, validation and test; of the last two, where they are cut off.

    Args:
        labels: int64 of shape (N,).
        val_fraction, test_fraction: the parts that are cut off; null where a dataset has its own.
        seed: of the split alone.
        names: of the classes, for the message.

    Raises:
        ConfigError: classes have too few images to stand in each part; names them.
    """
    needed = 1 + (val_fraction is not None) + (test_fraction is not None)
    present, counts = (found.tolist() for found in labels.unique(return_counts=True))
    scarce = {label: n for label, n in zip(present, counts, strict=True) if n < needed}
    if scarce:
        told = few(f"{names[c] if names else c} ({n})" for c, n in scarce.items())
        parts = {2: "training and validation", 3: "training, validation and test"}[needed]
        raise ConfigError(
            f"data: {parts} need at least {needed} images of each class; too few of class {told}; "
            f"add images or leave the class out"
        )
    rest, val, test = torch.arange(len(labels)), None, None
    if test_fraction is not None:
        rest, test = split_stratified(labels, test_fraction, seed)
    if val_fraction is not None:
        train, val = split_stratified(labels[rest], val_fraction, seed + 1)
        rest, val = rest[train], rest[val]
    return rest, val, test


def divide(
    everything: Images, *, val_fraction: float, test: Images | None, test_fraction: float, seed: int
) -> Splits:
    """Divide into train, validation and test; ``test`` is given where a dataset has one.

    The pixels are put in the order of the splits where they are, so that their memory is enough.
    """
    train, val, held_out = divide_labels(
        everything.labels,
        val_fraction=val_fraction,
        test_fraction=test_fraction if test is None else None,
        seed=seed,
    )
    assert val is not None
    assert isinstance(everything.pixels, Tensor)
    cut_off = val if held_out is None else torch.cat([val, held_out])
    move_to_end(everything.pixels, cut_off)
    parts = Images(everything.pixels, everything.labels[torch.cat([train, cut_off])])
    end = len(train) + len(val)
    return Splits(
        parts.part(slice(len(train))),
        parts.part(slice(len(train), end)),
        parts.part(slice(end, None)) if test is None else test,
    )


def move_to_end(rows: Tensor, chosen: Tensor) -> None:
    """Move some rows of a tensor behind all others, in place; both keep their order.

    Args:
        rows: of shape (N, ...).
        chosen: indices, int64; their rows are copied, of the others no more than a block at a time.
    """
    stay = torch.ones(len(rows), dtype=torch.bool)
    stay[chosen] = False
    moved, start = rows[chosen], 0
    at_once = max(BLOCK // max(rows[:1].nbytes, 1), 1)
    for block in stay.nonzero().squeeze(1).split(at_once):
        rows[start : start + len(block)] = rows[block]
        start += len(block)
    rows[start:] = moved


def class_counts(labels: Tensor, names: Sequence[str]) -> dict[str, int]:
    """Return the number of images of each class."""
    counts = labels.bincount(minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))
