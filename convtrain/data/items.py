"""What an item of a dataset may be, an image and its target, and how it becomes 8 bits and a label.

docs/data.md states the rules. A CorruptDataError says what was found and what is allowed, without
naming the item.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convtrain.config.data_sections import Interpolation
from convtrain.config.mistakes import brief
from convtrain.data.crops import middle, stored
from convtrain.data.decoding import Resize, resized
from convtrain.data.pixels import to_eight_bits
from convtrain.errors import CorruptDataError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels of an array to Pillow's mode, where the channels have to be converted."""

FROM_LEVEL = 1e-3  # levels that a float may be off; float32 of k/255 is off by 1e-5


class ItemRules(NamedTuple):
    """How to convert items; see :func:`~convtrain.data.pixels.to_eight_bits`."""

    shape: Sequence[int]  # channels, height, width
    resize: Resize
    num_classes: int
    background: int | Sequence[int] = 255
    value_range: Sequence[float] | None = None
    interpolation: Interpolation = "bilinear"
    store_size: int | None = None
    eval_crop: float = 0.875


Target = int | np.ndarray
"""A class index, or float32 of shape (classes,), how much of each class applies, in 0-1."""


def read_item(item: object, rules: ItemRules) -> tuple[np.ndarray, Target]:
    """Return an item's image and its target.

    The image is uint8 (channels, height, width) of ``rules.shape``, or, with ``store_size``, uint8
    (height, width, channels) as it is stored.
    """
    if not isinstance(item, tuple | list) or len(item) != 2:
        length = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise CorruptDataError(
            f"is a {type(item).__name__}{length}; return an image and its target: (image, target)"
        )
    image, target = item
    read = read_image if rules.store_size is None else read_stored_image
    return read(image, rules), read_target(target, rules.num_classes)


def read_image(image: object, rules: ItemRules) -> np.ndarray:
    """Return an image as uint8 (channels, height, width) of ``rules.shape``.

    Args:
        image: a Pillow image, an array (height, width) or (height, width, channels), or a tensor
            (height, width) or (channels, height, width).
    """
    _, height, width = rules.shape
    if rules.store_size is not None:
        return middle(torch.from_numpy(read_stored_image(image, rules)), rules).numpy()
    array = _eight_bits(image, rules)
    if array.shape[1:] != (height, width):
        planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in array)
        size = (width, height)
        planes = (resized(p, size, rules.resize, rules.interpolation) for p in planes)
        array = np.stack([np.asarray(plane) for plane in planes])
    return array


def read_stored_image(image: object, rules: ItemRules) -> np.ndarray:
    """Return an image as it is stored, uint8 (height, width, channels); see :func:`read_image`."""
    array = np.array(_eight_bits(image, rules).transpose(1, 2, 0))
    return stored(array, rules).numpy()


def _eight_bits(image: object, rules: ItemRules) -> np.ndarray:
    """Return an image of any size as uint8 (channels, height, width)."""
    channels = rules.shape[0]
    if isinstance(image, Image.Image):
        if channels in MODES and channels != 4:
            options = {"background": rules.background, "value_range": rules.value_range}
            image = to_eight_bits(image, channels, **options)  # type: ignore[arg-type]
        array = np.asarray(image)
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    elif isinstance(image, np.ndarray | Tensor):
        array = _channels_first(image)
    else:
        raise CorruptDataError(
            f"its image is a {type(image).__name__}; allowed are a Pillow image, a numpy array "
            f"(height, width, channels) and a tensor (channels, height, width)"
        )
    array = _in_eight_bits(array, rules.value_range)
    if len(array) != channels:
        array = _with_channels(array, channels, rules.background)
    return array


def read_target(target: object, num_classes: int) -> Target:
    """Return a class index in 0 to ``num_classes - 1``, or a vector with a number for each class.

    Args:
        target: a whole number, of Python, numpy or a tensor of one value, or a vector in 0-1.
    """
    array = target.detach().cpu().numpy() if isinstance(target, Tensor) else np.asarray(target)
    allowed = f"allowed are 0 to {num_classes - 1}, or {num_classes} numbers in 0-1"
    if array.dtype.kind not in "biuf":
        raise CorruptDataError(f"its target {brief(target)} is a {_kind(target)}; {allowed}")
    if array.size == 1 and array.ndim <= 1 and array.dtype.kind != "f":
        if not 0 <= (label := int(array.reshape(()))) < num_classes:
            raise CorruptDataError(f"its target is {label}; {allowed} (data.num_classes)")
        return label
    if array.shape != (num_classes,):
        what = f"is {array.item()}, a float" if array.ndim == 0 else f"has shape {array.shape}"
        raise CorruptDataError(f"its target {what}; {allowed}")
    if not ((array >= 0) & (array <= 1)).all():
        raise CorruptDataError(f"its target {brief(array.tolist())} leaves 0-1; {allowed}")
    return array.astype(np.float32)


def _kind(value: object) -> str:
    return type(value).__name__


def _channels_first(image: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        array = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    else:
        array = image if image.ndim != 3 else image.transpose(2, 0, 1)
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3 or not array.size:
        order = (
            "channels, height, width" if isinstance(image, Tensor) else "height, width, channels"
        )
        raise CorruptDataError(f"its image has shape {tuple(image.shape)}; expected ({order})")
    return array


def _in_eight_bits(array: np.ndarray, value_range: Sequence[float] | None) -> np.ndarray:
    """Return uint8; values that 8 bits cannot hold are refused unless ``value_range`` scales them.

    Floats are levels of 0-255 divided by 255, as ``ToTensor`` of torchvision makes them.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise CorruptDataError(f"its image holds {array.dtype}; give uint8, or floats in 0-1")
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise CorruptDataError("its image holds values that are not finite; replace them")
    if value_range is not None:
        low, high = value_range
        return ((values - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)
    found = f"its image holds {array.dtype} from {values.min():.4g} to {values.max():.4g}"
    if array.dtype.kind != "f":
        raise CorruptDataError(
            f"{found}; give uint8, or say which values become black and white: data.value_range="
            f"[0,255]"
        )
    levels = (values * 255).round()
    if levels.min() < 0 or levels.max() > 255:
        raise CorruptDataError(
            f"{found}; give uint8 or floats in 0-1, without Normalize (data.mean and data.std "
            f"do that), or say which values become black and white: data.value_range=[LOW,HIGH]"
        )
    if np.abs(values * 255 - levels).max() > FROM_LEVEL:
        raise CorruptDataError(
            f"{found} between the 256 levels that convtrain keeps; give uint8, or accept the "
            f"nearest level by data.value_range=[0,1]"
        )
    return levels.astype(np.uint8)


def _with_channels(array: np.ndarray, channels: int, background: int | Sequence[int]) -> np.ndarray:
    """Convert between grey, colour, and colour with transparency, as for image files."""
    if channels not in (1, 3) or len(array) not in MODES:
        raise CorruptDataError(
            f"its image has {len(array)} channels and {array.shape[1]}x{array.shape[2]} pixels, "
            f"data.shape has {channels} channels; arrays are (height, width, channels), tensors "
            f"(channels, height, width)"
        )
    stacked = np.ascontiguousarray(array.transpose(1, 2, 0))
    picture = Image.fromarray(stacked[:, :, 0] if len(array) == 1 else stacked)
    converted = to_eight_bits(picture, channels, background=background, value_range=None)
    result = np.asarray(converted)
    return result[None] if channels == 1 else result.transpose(2, 0, 1)
