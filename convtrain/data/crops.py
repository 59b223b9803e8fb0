"""Crops of images of their own sizes: at random for a training, the middle for an evaluation.

A crop is resized by torch's antialiased filter in integers, whose bits depend neither on the batch
nor on the kind of CPU.
"""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convtrain.config.data_sections import Interpolation
from convtrain.data.randomness import derive_seed

CROP = 11  # a draw number like those of ``convtrain.data.augment.OPERATIONS``
ATTEMPTS = 10  # to draw a box that fits into the image, as many as torchvision's


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class StoreRules(Protocol):
    """The rules of images of their own sizes."""

    @property
    def shape(self) -> Sequence[int]: ...
    @property
    def store_size(self) -> int | None: ...
    @property
    def eval_crop(self) -> float: ...
    @property
    def interpolation(self) -> Interpolation: ...


class RandomCrop(NamedTuple):
    """The distribution of random crops, that of torchvision's ``RandomResizedCrop``."""

    scale: Sequence[float]  # smallest and largest area, as a part of the image's
    ratio: Sequence[float]  # smallest and largest width / height


def random_box(image: Tensor, crop: RandomCrop, draw: int, *, seed: int, epoch: int) -> Box:
    """Draw the crop of an image (height, width, channels), from (seed, epoch, draw) alone.

    The area is uniform, and so is the logarithm of width / height. If no box fits in ``ATTEMPTS``
    attempts, the box is the largest in the middle whose proportions are allowed.
    """
    height, width = image.shape[:2]
    low, high = (math.log(ratio) for ratio in crop.ratio)
    numbers = random.Random(derive_seed(seed, epoch, draw, CROP))
    for _ in range(ATTEMPTS):
        area = height * width * numbers.uniform(*crop.scale)
        ratio = math.exp(numbers.uniform(low, high))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return Box(
                numbers.randint(0, height - tall), numbers.randint(0, width - wide), tall, wide
            )
    ratio = min(max(width / height, crop.ratio[0]), crop.ratio[1])
    return _middle(height, width, min(height, width / ratio), ratio)


def middle_box(height: int, width: int, size: Sequence[int], part: float) -> Box:
    """Return the middle of an image, in the proportions of ``size`` (height, width).

    Its height or width is ``part`` of the largest that fits.
    """
    ratio = size[1] / size[0]
    return _middle(height, width, part * min(height, width / ratio), ratio)


def _middle(height: int, width: int, tall: float, ratio: float) -> Box:
    wide, tall = _whole(tall * ratio, width), _whole(tall, height)
    return Box((height - tall) // 2, (width - wide) // 2, tall, wide)


def _whole(length: float, most: int) -> int:
    return min(max(math.floor(length + 0.5), 1), most)


def cut(image: Tensor, box: Box, size: Sequence[int], interpolation: Interpolation) -> Tensor:
    """Return a part of an image, resized.

    Args:
        image: uint8 (height, width, channels).
        size: height and width of the result.

    Returns:
        uint8 (channels, height, width), with the channels of a pixel next to one another.
    """
    part = image[None, box.top : box.top + box.height, box.left : box.left + box.width]
    levels = part.permute(0, 3, 1, 2)  # torch takes this order of dimensions for channels last
    if (box.height, box.width) == tuple(size):
        return levels[0]
    return F.interpolate(levels, tuple(size), mode=interpolation, antialias=True)[0]


def stored(array: np.ndarray, rules: StoreRules, size: tuple[int, int] | None = None) -> Tensor:
    """Return an image (height, width) or (height, width, channels) of its stored size.

    ``size`` (width, height) is that size where the array has been made smaller before.
    """
    image = torch.from_numpy(array if array.ndim == 3 else array[..., None])
    width, height = size or stored_size(image.shape[1], image.shape[0], rules)
    levels = cut(image, Box(0, 0, *image.shape[:2]), (height, width), rules.interpolation)
    return levels.permute(1, 2, 0).contiguous()


def stored_size(width: int, height: int, rules: StoreRules) -> tuple[int, int]:
    """Return the width and height that an image is stored with; small images keep theirs."""
    assert rules.store_size is not None
    scale = min(rules.store_size / min(width, height), 1.0)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def middle(image: Tensor, rules: StoreRules) -> Tensor:
    """Return the middle crop of a stored image, uint8 of ``rules.shape``."""
    size = rules.shape[1:]
    height, width = image.shape[:2]
    box = middle_box(height, width, size, rules.eval_crop)
    return cut(image, box, size, rules.interpolation)
