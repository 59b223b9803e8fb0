"""Batches of resident images: an index into one tensor, augmented and normalised as a batch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convtrain.data.augment import Augmentation, draws_for
from convtrain.data.images import Images
from convtrain.data.randomness import permutation


class Batch(NamedTuple):
    """What a training step sees.

    Attributes:
        images: float32 of shape (n, channels, height, width), normalised.
        targets: int64 of shape (n,).
        indices: int64 of shape (n,), the images' places in their split.
        share: the weight of this device's batch in the mean over devices; 1 unless the devices
            have different numbers of images; 0 where the image belongs to another device.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    share: float


class Normalisation:
    """``(pixels / 255 - mean) / std`` for each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = list(mean), list(std)
        self._scale = torch.tensor([1 / (255 * s) for s in std]).view(1, -1, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(
            1, -1, 1, 1
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        if self._scale.device != pixels.device:
            self._scale, self._shift = self._scale.to(pixels.device), self._shift.to(pixels.device)
        return pixels.to(torch.float32).mul_(self._scale).add_(self._shift)


class Batches:
    """An epoch's batches, in an order that follows from (seed, epoch).

    Lightning keeps ``state_dict`` in its checkpoints: an epoch goes on where the saved one stood.

    Args:
        images: the split.
        batch_size: over all devices together.
        shuffle: a new order each epoch, else the order of the split.
        rank, world_size: this device takes every ``world_size``-th image of a batch.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        normalise: Normalisation,
        augmentation: Augmentation | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images, self.batch_size = images, batch_size
        self.normalise, self.augmentation = normalise, augmentation
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.rank, self.world_size = rank, world_size
        self.epoch = self.position = self._start = 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self._start = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position % len(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self._start = self.position  # of the next epoch begun, and of no other

    def __len__(self) -> int:
        whole, rest = divmod(len(self.images), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        start, self._start = self._start, 0
        self.position = start
        count = len(self.images)
        order = permutation(count, self.seed, self.epoch) if self.shuffle else torch.arange(count)
        order = order.to(self.images.labels.device)
        for position in range(start, len(self)):
            whole = order[position * self.batch_size : (position + 1) * self.batch_size]
            self.position = position + 1
            yield self._batch(*self._mine(whole))

    def _mine(self, whole: Tensor) -> tuple[Tensor, float]:
        """Return this device's part of a batch, and the weight of that in the mean.

        In training all devices must take part in every step. One that is left without an image
        takes the first of another, with no weight.
        """
        mine = whole[self.rank :: self.world_size]
        if self.shuffle and not len(mine):
            return whole[:1], 0.0
        return mine, len(mine) * self.world_size / len(whole)

    def _batch(self, indices: Tensor, share: float) -> Batch:
        pixels, targets = self.images.pixels[indices], self.images.labels[indices]
        if self.augmentation is None:
            return Batch(self.normalise(pixels), targets, indices, share)
        draw = draws_for(indices, self.seed, self.epoch)
        pixels = self.augmentation.on_pixels(pixels, draw)
        images = self.augmentation.on_images(self.normalise(pixels), draw)
        return Batch(images, targets, indices, share)


def steps_per_epoch(count: int, batch_size: int, accumulate: int) -> int:
    """Optimiser steps in an epoch of ``count`` images."""
    return math.ceil(math.ceil(count / batch_size) / accumulate)
