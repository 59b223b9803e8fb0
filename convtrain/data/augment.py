"""Augmentation of whole batches, drawn from (seed, epoch, image index).

Each operation takes uniform numbers per image, so an image's result does not depend on its batch.
Only mixup and cutmix combine images; their weights depend on (seed, epoch, batch). Nothing here
synchronizes with the GPU.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from convtrain.config.transforms import make_transforms
from convtrain.data.crops import RandomCrop
from convtrain.data.randomness import derive_seed, uniforms
from convtrain.data.transforms import Transforms

PaddingMode = Literal["constant", "reflect"]
MIXUP, CUTMIX, MIXES_WHOLE = 6, 7, 8  # draw numbers like those in OPERATIONS


class Draws:
    """Uniform numbers in [0, 1) for each image of a batch, float64 of shape (N,), by draw name."""

    def __init__(self, indices: Tensor, seed: int, epoch: int, numbers: Mapping[str, int]) -> None:
        keys = [(seed, at, number) for at in (epoch, 0) for number in numbers.values()]
        names = [*numbers, *(f"{name} in epoch 0" for name in numbers)]
        self.epoch = epoch
        self._drawn = dict(zip(names, uniforms(indices, *keys), strict=True))

    def __call__(self, name: str) -> Tensor:
        return self._drawn[name]


def random_crop(
    pixels: Tensor, padding: int, draw: Draws, *, padding_mode: PaddingMode = "constant"
) -> Tensor:
    """Pad the images (N, C, H, W), and cut out the original size at a random position.

    All (2 * padding + 1)^2 positions are equally likely. ``constant`` pads with black.
    """
    count, channels, height, width = pixels.shape
    padded = _pad(pixels, padding, padding_mode)
    tall, wide = padded.shape[2:]
    row, column = ((draw(f"crop {way}") * (2 * padding + 1)).long() for way in ("row", "column"))
    # Each window row is ``width`` adjacent values in memory, so one index copies a whole row.
    image = torch.arange(count * channels, device=pixels.device).view(count, channels, 1)
    line = image * tall + row.view(-1, 1, 1) + torch.arange(height, device=pixels.device)
    start = line * wide + column.view(-1, 1, 1)
    lines = padded.view(-1).unfold(0, width, 1)
    return lines.index_select(0, start.view(-1)).view(pixels.shape)


def _pad(pixels: Tensor, padding: int, mode: PaddingMode) -> Tensor:
    if mode == "constant":
        return F.pad(pixels, (padding,) * 4)
    for dim in (2, 3):  # F.pad cannot reflect integers
        last = pixels.shape[dim] - 1
        place = torch.arange(-padding, last + padding + 1, device=pixels.device).abs()
        pixels = pixels.index_select(dim, last - (last - place).abs())
    return pixels


def horizontal_flip(
    pixels: Tensor, probability: float, draw: Draws, *, flip_alternates: bool = False
) -> Tensor:
    """Mirror images (N, C, H, W) with the given probability.

    ``flip_alternates`` flips each image at that fixed rate instead, with 0.5 in every other epoch
    (Jordan, 2024). A random draw selects the images that are flipped first.
    """
    number = draw("flip")
    if flip_alternates:
        number = (draw("flip in epoch 0") + draw.epoch * (1 - probability) % 1) % 1
    flips = (number < probability).view(-1, 1, 1, 1)
    if pixels.is_floating_point():
        return torch.where(flips, pixels.flip(-1), pixels)
    # A bit mask takes a third of the time of torch.where on bytes.
    mask = flips.to(pixels.dtype).neg_()
    return pixels.flip(-1).bitwise_xor_(pixels).bitwise_and_(mask).bitwise_xor_(pixels)


def cutout_(images: Tensor, side: int, draw: Draws) -> Tensor:
    """Blank a square around a random pixel, in place (DeVries and Taylor, 2017).

    The images (N, C, H, W) are normalised, so zero is the mean colour. Borders clip the square.
    """

    def inside(purpose: str, length: int) -> Tensor:
        start = (draw(purpose) * length).long().unsqueeze(1) - side // 2
        position = torch.arange(length, device=images.device)
        return (position >= start) & (position < start + side)

    rows, columns = inside("cutout row", images.shape[2]), inside("cutout column", images.shape[3])
    return images.mul_(~(rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1))


def mixup_weight(alpha: float, seed: int, epoch: int, batch: int) -> float:
    """Draw each image's weight in its mixture from Beta(alpha, alpha) (Zhang et al., 2018)."""
    return random.Random(derive_seed(seed, epoch, batch, MIXUP)).betavariate(alpha, alpha)


def cutmix_box(
    alpha: float, height: int, width: int, seed: int, epoch: int, batch: int
) -> tuple[slice, slice, float]:
    """Draw the rows and columns that another image replaces, and the weight of the image itself.

    The box covers 1 - Beta(alpha, alpha) of the image around a random pixel, and the borders clip
    it (Yun et al., 2019); the weight is the part of the pixels that are not replaced.
    """
    draw = random.Random(derive_seed(seed, epoch, batch, CUTMIX))
    half = 0.5 * math.sqrt(1 - draw.betavariate(alpha, alpha))
    rows, columns = (
        slice(max(centre - reach, 0), min(centre + reach, length))
        for length in (height, width)
        for centre, reach in [(draw.randrange(length), int(half * length))]
    )
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return rows, columns, 1 - area / (height * width)


def mixed_targets(labels: Tensor, partners: Tensor, weight: float, classes: int) -> Tensor:
    """Return the fraction of each class in the mixed images, float32 of shape (N, classes).

    The labels are class indices, int64 (N,), or already floats (N, classes).
    """
    if labels.is_floating_point():
        return torch.lerp(partners, labels, weight)
    known = torch.arange(classes, device=labels.device)
    own, other = (each.unsqueeze(1) == known for each in (labels, partners))
    return own * weight + other * (1 - weight)


class Operation(NamedTuple):
    """A row of ``OPERATIONS``."""

    function: Callable[..., Tensor]  # (images, value of the key, draws, **options)
    draws: dict[str, int]  # name to number, unique among all operations
    options: tuple[str, ...] = ()  # further keys of the group that the function takes
    on_images: bool = False  # changes normalised images in place; else takes uint8 pixels


OPERATIONS = {
    "random_crop": Operation(random_crop, {"crop row": 1, "crop column": 2}, ("padding_mode",)),
    "horizontal_flip": Operation(horizontal_flip, {"flip": 3}, ("flip_alternates",)),
    "cutout": Operation(cutout_, {"cutout row": 4, "cutout column": 5}, on_images=True),
}
"""Key of the group ``augment`` to its operation, in the order of execution."""


def stored_shapes(channels: int, store_size: int) -> list[tuple[int, int, int]]:
    """Return shapes of stored images that transforms must accept: wide, tall and small ones."""
    longer, small = store_size * 4 // 3, max(store_size // 4, 1)
    sizes = ((store_size, longer), (longer, store_size), (small, small), (store_size, store_size))
    return [(channels, *size) for size in sizes]


class Augmentation:
    """What is done to training images: the transforms, the enabled operations, then the mixture.

    Args:
        mixup, cutmix: alpha of the Beta distribution; 0 disables it. With both, each batch takes
            one of them at random.
        transforms: as declared in the configuration, with the packages that it trusts.
        workers: processes that apply the transforms.
        shape: channels, height and width of the images; required by transforms.
        settings: keys of ``OPERATIONS``, of which 0 disables one, and their options.
    """

    def __init__(
        self,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        crop_scale: Sequence[float] | None = None,
        crop_ratio: Sequence[float] = (3 / 4, 4 / 3),
        transforms: Sequence[object] = (),
        workers: int | Literal["auto"] = "auto",
        shape: Sequence[int] = (),
        store_size: int | None = None,
        trust: Sequence[str] = (),
        **settings: float | bool | str,
    ) -> None:
        known = {key for name, row in OPERATIONS.items() for key in (name, *row.options)}
        if unknown := settings.keys() - known:
            raise TypeError(f"no operation takes {', '.join(sorted(unknown))}")
        self.mixup, self.cutmix, self.workers = mixup, cutmix, workers
        self.crop = RandomCrop(crop_scale, crop_ratio) if store_size and crop_scale else None
        inputs = stored_shapes(shape[0], store_size) if store_size and not self.crop else None
        self.transforms = (
            Transforms(make_transforms(transforms, trust), shape, inputs) if transforms else None
        )
        self._chosen = [(row, name) for name, row in OPERATIONS.items() if settings.get(name)]
        self._settings = settings
        self._draws = {name: n for row, _ in self._chosen for name, n in row.draws.items()}

    def __call__(
        self,
        pixels: Tensor,
        indices: Tensor,
        *,
        seed: int,
        epoch: int,
        normalise: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Apply the operations to pixels (N, C, H, W), and normalise them.

        ``pixels`` are those that ``normalise`` takes, and ``indices`` are on the same device.
        """
        if not self._chosen:
            return normalise(pixels)
        draw = Draws(indices, seed, epoch, self._draws)
        images = normalise(self._apply(pixels, draw, on_images=False))
        return self._apply(images, draw, on_images=True)

    def _apply(self, images: Tensor, draw: Draws, *, on_images: bool) -> Tensor:
        for row, name in self._chosen:
            if row.on_images == on_images:
                options = {k: self._settings[k] for k in row.options if k in self._settings}
                images = row.function(images, self._settings[name], draw, **options)
        return images

    @property
    def mixes(self) -> bool:
        """Whether images are combined, so that targets are fractions of classes."""
        return self.mixup > 0 or self.cutmix > 0

    def mix(
        self, images: Tensor, partners: Tensor, *, seed: int, epoch: int, batch: int
    ) -> tuple[Tensor, float]:
        """Combine normalised images with their partners, by mixup or cutmix.

        Returns:
            the mixtures, which may reuse the memory of ``images``, and the images' own weight.
        """
        both = self.mixup > 0 and self.cutmix > 0
        chosen = random.Random(derive_seed(seed, epoch, batch, MIXES_WHOLE)).random() if both else 0
        if self.mixup and chosen < 0.5:
            own = mixup_weight(self.mixup, seed, epoch, batch)
            return torch.lerp(partners, images, own), own
        height, width = images.shape[2:]
        rows, columns, own = cutmix_box(self.cutmix, height, width, seed, epoch, batch)
        images[:, :, rows, columns] = partners[:, :, rows, columns]
        return images, own
