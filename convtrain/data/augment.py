"""Augmentation of whole batches, drawn from (seed, epoch, image index).

Each operation takes uniform numbers per image, so an image's result does not depend on its batch.
Only mixup combines images; its weight depends on (seed, epoch, batch). Nothing here synchronizes
with the GPU.
"""

import random
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from convtrain.data.randomness import derive_seed, uniforms

PaddingMode = Literal["constant", "reflect"]
MIXUP = 6  # a draw number like those in OPERATIONS


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
    """Mirror integer images (N, C, H, W) with the given probability.

    ``flip_alternates`` flips each image at that fixed rate instead, with 0.5 in every other epoch
    (Jordan, 2024). A random draw selects the images that are flipped first.
    """
    number = draw("flip")
    if flip_alternates:
        number = (draw("flip in epoch 0") + draw.epoch * (1 - probability) % 1) % 1
    # A bit mask takes a third of the time of torch.where on bytes.
    mask = (number < probability).to(pixels.dtype).neg_().view(-1, 1, 1, 1)
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


class Augmentation:
    """The enabled operations.

    Args:
        mixup: alpha of the Beta distribution; 0 disables mixup.
        settings: keys of ``OPERATIONS``, of which 0 disables one, and their options.
    """

    def __init__(self, *, mixup: float = 0.0, **settings: float | bool | str) -> None:
        known = {key for name, row in OPERATIONS.items() for key in (name, *row.options)}
        if unknown := settings.keys() - known:
            raise TypeError(f"no operation takes {', '.join(sorted(unknown))}")
        self.mixup = mixup
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
        """Augment and normalise uint8 pixels (N, C, H, W); ``indices`` are on the same device."""
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
