"""Images in memory, and how they are divided."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convtrain.data.randomness import permutation
from convtrain.errors import ConfigError


@dataclass(frozen=True)
class Images:
    """A set of labelled images.

    Attributes:
        pixels: uint8 of shape (N, channels, height, width).
        labels: int64 of shape (N,), each a class index.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def pick(self, indices: Tensor) -> "Images":
        return Images(self.pixels[indices], self.labels[indices])

    def first(self, count: int | None) -> "Images":
        return self if count is None else Images(self.pixels[:count], self.labels[:count])

    def to(self, device: torch.device) -> "Images":
        return Images(self.pixels.to(device), self.labels.to(device))


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


def divide(
    everything: Images, *, val_fraction: float, test: Images | None, test_fraction: float, seed: int
) -> Splits:
    """Divide into train, validation and test; ``test`` is given where a dataset has one."""
    if test is None:
        rest, held_out = split_stratified(everything.labels, test_fraction, seed)
        everything, test = everything.pick(rest), everything.pick(held_out)
    train, val = split_stratified(everything.labels, val_fraction, seed + 1)
    return Splits(everything.pick(train), everything.pick(val), test)


def class_counts(labels: Tensor, names: Sequence[str]) -> dict[str, int]:
    """Return the number of images of each class."""
    counts = labels.bincount(minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))
