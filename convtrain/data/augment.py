"""Augmentation of whole batches, drawn from (seed, epoch, image index).

Each operation is a function of the images and of uniform numbers, one or two for each image, so
that what happens to an image does not depend on the batch it is in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from convtrain.data.randomness import uniform

Draw = Callable[[str], Tensor]
"""From a purpose to one number in [0, 1) for each image, float64 of shape (N,)."""

_PURPOSES = {"crop row": 1, "crop column": 2, "flip": 3, "cutout row": 4, "cutout column": 5}


def draws_for(indices: Tensor, seed: int, epoch: int) -> Draw:
    """Return the draws of the images with these indices in this epoch."""
    return lambda purpose: uniform(indices, seed, epoch, _PURPOSES[purpose])


def random_crop(pixels: Tensor, padding: int, draw: Draw) -> Tensor:
    """Pad with black and cut out the original size at a random place.

    Args:
        pixels: (N, C, H, W).
        padding: on each side, in pixels; every one of the (2 * padding + 1)^2 places is as likely.
    """
    height, width = pixels.shape[2:]
    padded = F.pad(pixels, (padding,) * 4)
    places = 2 * padding + 1
    row = (draw("crop row") * places).long()
    column = (draw("crop column") * places).long()
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(pixels), device=pixels.device), :, row, column]


def horizontal_flip(pixels: Tensor, probability: float, draw: Draw) -> Tensor:
    """Mirror left and right with the given probability."""
    mirrored = (draw("flip") < probability).view(-1, 1, 1, 1)
    return torch.where(mirrored, pixels.flip(-1), pixels)


def cutout(images: Tensor, side: int, draw: Draw) -> Tensor:
    """Blank a square around a random pixel (DeVries and Taylor, 2017).

    Args:
        images: normalised, (N, C, H, W); zero is the mean colour.
        side: of the square, in pixels; near a border part of it falls outside.
    """
    height, width = images.shape[2:]

    def inside(center: Tensor, length: int) -> Tensor:
        start = center.unsqueeze(1) - side // 2
        position = torch.arange(length, device=images.device)
        return (position >= start) & (position < start + side)

    rows = inside((draw("cutout row") * height).long(), height)
    columns = inside((draw("cutout column") * width).long(), width)
    return images.masked_fill((rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1), 0.0)


@dataclass(frozen=True)
class Augmentation:
    """Which operations are on; zero switches one off."""

    random_crop: int = 0
    horizontal_flip: float = 0.0
    cutout: int = 0

    def on_pixels(self, pixels: Tensor, draw: Draw) -> Tensor:
        """Apply what moves pixels: uint8 in, uint8 out."""
        if self.random_crop:
            pixels = random_crop(pixels, self.random_crop, draw)
        if self.horizontal_flip:
            pixels = horizontal_flip(pixels, self.horizontal_flip, draw)
        return pixels

    def on_images(self, images: Tensor, draw: Draw) -> Tensor:
        """Apply what needs normalised images."""
        return cutout(images, self.cutout, draw) if self.cutout else images
