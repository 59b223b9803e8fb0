"""Batches of resident images: an index into one tensor, augmented and normalised as a batch."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from convtrain.config.epochs import batch_count, limited
from convtrain.data.augment import Augmentation, mixed_targets, mixup, mixup_weight
from convtrain.data.images import Images
from convtrain.data.randomness import permutation


class Batch(NamedTuple):
    """What a training step sees.

    Attributes:
        images: float32 of shape (n, channels, height, width), normalised.
        targets: int64 of shape (n,); under mixup float32 of shape (n, classes), the fraction of
            each class.
        indices: int64 of shape (n,), the images' indices in their split.
        loss_weight: a factor of this batch's mean loss, so that the mean over all devices and all
            accumulated batches is the mean over the images of the optimiser step. It is 1 where
            each of them has as many images, and 0 where the image belongs to another device.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    loss_weight: float


class Normalisation:
    """``(pixels / 255 - mean) / std`` for each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self._scale = torch.tensor([1 / (255 * s) for s in std]).view(1, -1, 1, 1)
        self._shift = torch.tensor(shift).view(1, -1, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        if self._scale.device != pixels.device:
            self._scale, self._shift = self._scale.to(pixels.device), self._shift.to(pixels.device)
        return pixels.to(torch.float32).mul_(self._scale).add_(self._shift)


@dataclass(eq=False)
class Batches:
    """An epoch's batches, in an order that follows from (seed, epoch).

    Lightning keeps ``state_dict`` in its checkpoints, and a resumed epoch starts at its position.

    Attributes:
        images: the split.
        batch_size: over all devices together.
        classes: their number, which mixup needs.
        shuffle: a new order each epoch, else the order of the split.
        rank, world_size: this device takes every ``world_size``-th image of a batch.
        accumulate: batches of an optimiser step.
        limit: the batches of an epoch that are used, as in ``trainer.limit_train_batches``.
        seconds: the time that the training thread has spent on making batches.
    """

    images: Images
    batch_size: int
    normalise: Normalisation
    augmentation: Augmentation = field(default_factory=Augmentation)
    classes: int | None = None
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    limit: float = 1.0

    def __post_init__(self) -> None:
        self.epoch = self.position = self._start = 0
        self.seconds = 0.0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self._start = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self._start = self.position  # of the next epoch alone

    def __len__(self) -> int:
        return batch_count(len(self.images), self.batch_size, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        start, self._start = self._start, 0
        self.position = start
        batches = self._in_order()
        for position in range(start, len(self)):
            began = time.perf_counter()
            self.position = position + 1
            if position + 1 < len(self):
                self.images.expect(self._mine(batches[position + 1]))
            batch = self._batch(batches[position], position)
            self.seconds += time.perf_counter() - began
            yield batch

    def at(self, position: int) -> Batch:
        """Make one batch of this epoch, without advancing."""
        return self._batch(self._in_order()[position], position)

    def _in_order(self) -> Sequence[Tensor]:
        """Return the indices of each batch of this epoch, over all devices."""
        count = len(self.images)
        order = permutation(count, self.seed, self.epoch) if self.shuffle else torch.arange(count)
        return order.to(self.images.indexed_on).split(self.batch_size)

    def _mine(self, whole: Tensor) -> Tensor:
        """Return this device's part of a batch.

        All devices must take part in every training step. A device without an image takes the
        first image of another device, with loss weight 0.
        """
        mine = whole[self.rank :: self.world_size]
        return whole[:1] if self.shuffle and not len(mine) else mine

    def _batch(self, whole: Tensor, position: int) -> Batch:
        mine = self._mine(whole)
        weight = len(mine) * self.world_size * self.accumulate / self._images_of_step(position)
        images, targets, indices = self._augmented(mine)
        if alpha := self.augmentation.mixup:
            # Each image's partner precedes it in the whole batch, on whichever device that is.
            if self.world_size == 1:
                partners, their_targets = images.roll(1, 0), targets.roll(1)
            else:
                partners, their_targets, _ = self._augmented(self._mine(whole.roll(1)))
            own = mixup_weight(alpha, self.seed, self.epoch, position)
            images = mixup(images, partners, own)
            assert self.classes is not None
            targets = mixed_targets(targets, their_targets, own, self.classes)
        return Batch(images, targets, indices, weight if self.rank < len(whole) else 0.0)

    def _images_of_step(self, position: int) -> int:
        """Count the images, over all devices, of the optimiser step that a batch belongs to."""
        first = position - position % self.accumulate
        last = min(first + self.accumulate, max(limited(len(self), self.limit), position + 1))
        return min(last * self.batch_size, len(self.images)) - first * self.batch_size

    def _augmented(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels and indices on the device that trains."""
        pixels = self.images.read(indices)
        indices = indices.to(pixels.device, non_blocking=True)
        labels = self.images.labels.index_select(0, indices)
        images = self.augmentation(
            pixels, indices, seed=self.seed, epoch=self.epoch, normalise=self.normalise
        )
        return images, labels, indices
