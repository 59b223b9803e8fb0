"""Images in memory, and how they are divided."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convtrain.data.pixel_file import PixelFile
from convtrain.data.randomness import permutation
from convtrain.errors import ConfigError


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

    def first(self, count: int | None) -> "Images":
        return self if count is None else self.part(slice(count))

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
    train: Images
    val: Images
    test: Images


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


def divide_labels(
    labels: Tensor, *, val_fraction: float, test_fraction: float | None, seed: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the indices of training, validation and test; no test without its fraction."""
    rest, test = torch.arange(len(labels)), None
    if test_fraction is not None:
        rest, test = split_stratified(labels, test_fraction, seed)
    train, val = split_stratified(labels[rest], val_fraction, seed + 1)
    return rest[train], rest[val], test


def divide(
    everything: Images, *, val_fraction: float, test: Images | None, test_fraction: float, seed: int
) -> Splits:
    """Divide into train, validation and test; ``test`` is given where a dataset has one."""
    train, val, held_out = divide_labels(
        everything.labels,
        val_fraction=val_fraction,
        test_fraction=test_fraction if test is None else None,
        seed=seed,
    )
    if test is None:
        assert held_out is not None
        test = everything.pick(held_out)
    return Splits(everything.pick(train), everything.pick(val), test)


def class_counts(labels: Tensor, names: Sequence[str]) -> dict[str, int]:
    """Return the number of images of each class."""
    counts = labels.bincount(minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))
