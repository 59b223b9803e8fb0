"""Batches of resident images, indexed, augmented and normalised as tensors."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from convtrain.config.epochs import batch_count, limited
from convtrain.data.augment import Augmentation, mixed_targets
from convtrain.data.images import Images
from convtrain.data.per_image import PerImage
from convtrain.data.reused_memory import ReusedMemory
from convtrain.data.sampling import epoch_order, image_of
from convtrain.data.sized_pixels import SizedPixels
from convtrain.data.workers import TransformedImages, worker_count
from convtrain.process.ranks import rank_info

BATCHES_AHEAD = 2  # that workers transform while the model trains


class Batch(NamedTuple):
    """The input of a training step.

    ``loss_weight`` scales this batch's mean loss, so that the mean over devices and accumulated
    batches is the mean over the images of the optimiser step. It is 1 where all batches are equally
    large, and 0 where the image belongs to another device.
    """

    images: Tensor  # float32 of shape (n, channels, height, width), normalised
    targets: Tensor  # int64 (n,), or float32 (n, classes): of mixed images, or if the labels are so
    indices: Tensor  # int64 (n,), in the split
    loss_weight: float


class Normalisation:
    """``(pixels / 255 - mean) / std`` for each channel; floats are pixels in 0 to 1 already."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self._scale = torch.tensor([1 / (255 * s) for s in std]).view(1, -1, 1, 1)
        self._shift = torch.tensor(shift).view(1, -1, 1, 1)
        self._memory = ReusedMemory()

    def __call__(self, pixels: Tensor) -> Tensor:
        if self._scale.device != pixels.device:
            self._scale, self._shift = self._scale.to(pixels.device), self._shift.to(pixels.device)
        plain = pixels.is_contiguous() and not torch.compiler.is_compiling()  # an export traces it
        if pixels.device.type == "cpu" and plain:
            levels = self._memory.empty(pixels.shape).copy_(pixels)
        else:
            levels = pixels.to(torch.float32, copy=True)
        if pixels.is_floating_point():
            levels.mul_(255)
        return levels.mul_(self._scale).add_(self._shift)


@dataclass(eq=False)
class Batches:
    """An epoch's batches, in an order that depends on (seed, epoch) alone.

    Lightning stores ``state_dict`` in its checkpoints, and a resumed epoch starts at its position.
    ``seconds`` is the time that the training thread has spent on making batches.
    """

    images: Images
    batch_size: int  # over all devices together
    normalise: Normalisation
    augmentation: Augmentation = field(default_factory=Augmentation)
    classes: int | None = None  # required by mixup and cutmix
    shuffle: bool = False
    balanced: bool = False  # a shuffled epoch draws each class equally often
    seed: int = 0
    drop_last: bool = False
    rank: int = 0  # this device takes every ``world_size``-th image of a batch
    world_size: int = 1
    accumulate: int = 1  # batches of an optimiser step
    limit: float = 1.0  # as in ``trainer.limit_train_batches``

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
        self._start = self.position  # applies to the next epoch only

    def __len__(self) -> int:
        return batch_count(len(self.images), self.batch_size, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        start, self._start = self._start, 0
        self.position = start
        batches = self._in_order()
        for position in range(start, len(self)):
            began = time.perf_counter()
            self.position = position + 1
            with self._beside_workers():
                self._expect(batches, position)
                batch = self._batch(batches[position], position)
            self.seconds += time.perf_counter() - began
            yield batch

    def at(self, position: int) -> Batch:
        """Make one batch of this epoch without advancing."""
        return self._batch(self._in_order()[position], position)

    def close(self) -> None:
        """End the processes that transform images, if there are any."""
        if self._transformed is not None:
            self._transformed.close()

    def _in_order(self) -> Sequence[Tensor]:
        if self.shuffle:
            labels = self.images.labels
            order = epoch_order(labels, self.seed, self.epoch, balanced=self.balanced)
        else:
            order = torch.arange(len(self.images))
        return order.to(self.images.indexed_on).split(self.batch_size)

    def _mine(self, whole: Tensor) -> Tensor:
        """Return this rank's part of a batch, or an image of weight 0, as each rank must step."""
        mine = whole[self.rank :: self.world_size]
        return whole[:1] if self.shuffle and not len(mine) else mine

    @cached_property
    def _transformed(self) -> TransformedImages | None:
        crop, transforms = self.augmentation.crop, self.augmentation.transforms
        if transforms is None and not isinstance(self.images.pixels, SizedPixels):
            return None
        processes = min(rank_info().local_world_size, self.world_size)
        return TransformedImages(
            self.images,
            PerImage(self.images.pixels, crop, transforms),
            seed=self.seed,
            workers=worker_count(self.augmentation.workers, processes),
            most=math.ceil(self.batch_size / self.world_size),
            ahead=(1 + BATCHES_AHEAD) * (1 + self._reads_partners),
        )

    @property
    def _reads_partners(self) -> bool:
        return self.augmentation.mixes and self.world_size > 1

    @contextmanager
    def _beside_workers(self) -> Iterator[None]:
        """Compute on one thread while workers transform images: further ones wait for a core."""
        threads = torch.get_num_threads()
        if self._transformed is None or not self._transformed.workers or threads == 1:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _expect(self, batches: Sequence[Tensor], position: int) -> None:
        """Announce what will be read after, or for, the batch at a position."""
        if self._transformed is None:
            if position + 1 < len(self):
                self.images.expect(image_of(self._mine(batches[position + 1])))
            return
        last = max(limited(len(self), self.limit), position + 1)
        for whole in batches[position : min(position + 1 + BATCHES_AHEAD, last)]:
            self._transformed.expect(self._mine(whole), self.epoch)
            if self._reads_partners:
                self._transformed.expect(self._mine(whole.roll(1)), self.epoch)

    def _batch(self, whole: Tensor, position: int) -> Batch:
        mine = self._mine(whole)
        weight = len(mine) * self.world_size * self.accumulate / self._images_of_step(position)
        images, targets, indices = self._augmented(mine)
        if self.augmentation.mixes:
            # Each image's partner precedes it in the whole batch, maybe on another device.
            if not self._reads_partners:
                partners, their_targets = images.roll(1, 0), targets.roll(1, 0)
            else:
                partners, their_targets, _ = self._augmented(self._mine(whole.roll(1)))
            images, own = self.augmentation.mix(
                images, partners, seed=self.seed, epoch=self.epoch, batch=position
            )
            assert self.classes is not None
            targets = mixed_targets(targets, their_targets, own, self.classes)
        return Batch(images, targets, indices, weight if self.rank < len(whole) else 0.0)

    def _images_of_step(self, position: int) -> int:
        first = position - position % self.accumulate
        last = min(first + self.accumulate, max(limited(len(self), self.limit), position + 1))
        return min(last * self.batch_size, len(self.images)) - first * self.batch_size

    def _augmented(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._transformed is None:
            pixels = self.images.read(image_of(draws))
        else:
            pixels = self._transformed.read(draws, self.epoch)
        draws = draws.to(pixels.device, non_blocking=True)
        indices = image_of(draws)
        labels = self.images.labels.index_select(0, indices)
        images = self.augmentation(
            pixels, draws, seed=self.seed, epoch=self.epoch, normalise=self.normalise
        )
        return images, labels, indices
