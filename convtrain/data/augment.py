"""Augmentation of whole batches, drawn from (seed, epoch, image index).

Each operation is a function of the images and of uniform numbers, one or two for each image, so
that what happens to an image does not depend on the batch it is in. Only mixup joins the images of
a batch; its weight is drawn from (seed, epoch, batch). Nothing here waits for the device.
"""

import random
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from convtrain.data.randomness import derive_seed, uniforms

PaddingMode = Literal["constant", "reflect"]

_PURPOSES = {"crop row": 1, "crop column": 2, "flip": 3, "cutout row": 4, "cutout column": 5}
_MIXUP = 6


class Draws:
    """What is drawn for each image of a batch in an epoch.

    Called with a purpose it returns one number in [0, 1) for each image, float64 of shape (N,).
    """

    def __init__(self, indices: Tensor, seed: int, epoch: int) -> None:
        each = [(seed, epoch, purpose) for purpose in _PURPOSES.values()]
        numbers = uniforms(indices, *each, (seed, 0, _PURPOSES["flip"]))
        self.epoch = epoch
        self._numbers = dict(zip((*_PURPOSES, "flip of epoch 0"), numbers, strict=True))

    def __call__(self, purpose: str) -> Tensor:
        return self._numbers[purpose]


def random_crop(
    pixels: Tensor, padding: int, draw: Draws, padding_mode: PaddingMode = "constant"
) -> Tensor:
    """Pad and cut out the original size at a random place.

    Args:
        pixels: (N, C, H, W).
        padding: on each side, in pixels; every one of the (2 * padding + 1)^2 places is as likely.
        padding_mode: ``constant`` pads with black, ``reflect`` with the image's mirror image.
    """
    count, channels, height, width = pixels.shape
    padded = _pad(pixels, padding, padding_mode)
    tall, wide = padded.shape[2:]
    row, column = ((draw(f"crop {way}") * (2 * padding + 1)).long() for way in ("row", "column"))
    # A row of a window is ``width`` values side by side in memory: it is copied as a whole.
    image = torch.arange(count * channels, device=pixels.device).view(count, channels, 1)
    line = image * tall + row.view(-1, 1, 1) + torch.arange(height, device=pixels.device)
    start = line * wide + column.view(-1, 1, 1)
    lines = padded.view(-1).unfold(0, width, 1)
    return lines.index_select(0, start.view(-1)).view(pixels.shape)


def _pad(pixels: Tensor, padding: int, mode: PaddingMode) -> Tensor:
    if mode == "constant":
        return F.pad(pixels, (padding,) * 4)
    for dim in (2, 3):  # F.pad reflects no integers
        last = pixels.shape[dim] - 1
        place = torch.arange(-padding, last + padding + 1, device=pixels.device).abs()
        pixels = pixels.index_select(dim, last - (last - place).abs())
    return pixels


def horizontal_flip(
    pixels: Tensor, probability: float, draw: Draws, *, alternates: bool = False
) -> Tensor:
    """Mirror left and right with the given probability.

    Args:
        pixels: integers, (N, C, H, W).
        alternates: an image's turn comes as often, but regularly: with 0.5 in every other epoch.
            Which images begin is drawn.
    """
    number = draw("flip")
    if alternates:
        number = (draw("flip of epoch 0") + draw.epoch * (1 - probability) % 1) % 1
    # Bits of either side, by a mask: a third of the time that torch.where takes on bytes.
    mask = (number < probability).to(pixels.dtype).neg_().view(-1, 1, 1, 1)
    return pixels.flip(-1).bitwise_xor_(pixels).bitwise_and_(mask).bitwise_xor_(pixels)


def cutout_(images: Tensor, side: int, draw: Draws) -> Tensor:
    """Blank a square around a random pixel, in place (DeVries and Taylor, 2017).

    Args:
        images: normalised, (N, C, H, W); zero is the mean colour.
        side: of the square, in pixels; near a border part of it falls outside.
    """

    def inside(purpose: str, length: int) -> Tensor:
        start = (draw(purpose) * length).long().unsqueeze(1) - side // 2
        position = torch.arange(length, device=images.device)
        return (position >= start) & (position < start + side)

    rows, columns = inside("cutout row", images.shape[2]), inside("cutout column", images.shape[3])
    return images.mul_(~(rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1))


def mixup_weight(alpha: float, seed: int, epoch: int, batch: int) -> float:
    """Draw the part of itself that each image of a batch keeps, from Beta(alpha, alpha)."""
    return random.Random(derive_seed(seed, epoch, batch, _MIXUP)).betavariate(alpha, alpha)


def mixup(images: Tensor, partners: Tensor, weight: float) -> Tensor:
    """Return ``weight * images + (1 - weight) * partners`` (Zhang et al., 2018)."""
    return torch.lerp(partners, images, weight)


def mixed_targets(labels: Tensor, partners: Tensor, weight: float, classes: int) -> Tensor:
    """Return the classes of mixed images in parts that add up to 1, float32 of (N, classes)."""
    known = torch.arange(classes, device=labels.device)
    own, other = (each.unsqueeze(1) == known for each in (labels, partners))
    return own * weight + other * (1 - weight)


@dataclass(frozen=True)
class Augmentation:
    """Which operations are on; zero switches one off.

    Attributes:
        random_crop: padding on each side, in pixels.
        padding_mode: what is padded with.
        horizontal_flip: probability.
        flip_alternates: mirror an image in every other epoch, not by chance (Jordan, 2024).
        cutout: side of the blanked square, in pixels.
        mixup: alpha of the distribution that the weight of a batch is drawn from.
    """

    random_crop: int = 0
    padding_mode: PaddingMode = "constant"
    horizontal_flip: float = 0.0
    flip_alternates: bool = False
    cutout: int = 0
    mixup: float = 0.0

    @property
    def draws(self) -> bool:
        """Whether anything is drawn for each image."""
        return bool(self.random_crop or self.horizontal_flip or self.cutout)

    def on_pixels(self, pixels: Tensor, draw: Draws) -> Tensor:
        """Apply what moves pixels: uint8 in, uint8 out."""
        if self.random_crop:
            pixels = random_crop(pixels, self.random_crop, draw, self.padding_mode)
        if self.horizontal_flip:
            alternates = self.flip_alternates
            pixels = horizontal_flip(pixels, self.horizontal_flip, draw, alternates=alternates)
        return pixels

    def on_images(self, images: Tensor, draw: Draws) -> Tensor:
        """Apply what needs normalised images, in place."""
        return cutout_(images, self.cutout, draw) if self.cutout else images
