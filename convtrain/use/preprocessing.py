"""From an image of any kind to the pixels that a trained model has learned from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convtrain.config.data_sections import BaseData
from convtrain.config.image_files import sorted_files
from convtrain.data.batches import Normalisation
from convtrain.data.decoding import Rules, by_our_rules, decode
from convtrain.data.items import FROM_LEVEL, ItemRules, read_image
from convtrain.errors import ConfigError, CorruptDataError, MissingDataError

ITEM_KEYS = {*Rules._fields} & {*ItemRules._fields}

Picture = Image.Image | np.ndarray | Tensor
"""An image in memory."""


class Preprocessing:
    """Decoding, size and normalisation of images, as in the training of a run.

    Attributes:
        rules: how a file is decoded and gets the size of the model's input.
        normalise: maps pixels, uint8 or floats in 0-1, to the model's input.
    """

    def __init__(self, data: BaseData) -> None:
        keys = (key for key in Rules._fields if hasattr(data, key))
        self.rules = Rules(**{key: getattr(data, key) for key in keys})
        self.mean, self.std = data.mean, data.std
        self.normalise = Normalisation(data.mean, data.std)
        rules = self.rules
        self._items = ItemRules(
            num_classes=data.class_count, **{key: getattr(rules, key) for key in ITEM_KEYS}
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the model's input."""
        channels, height, width = self.rules.shape
        return channels, height, width

    @property
    def file_rules(self) -> Rules:
        """The :attr:`rules`; a ConfigError says that the model does not take images of files."""
        if (channels := self.shape[0]) not in (1, 3):
            raise ConfigError(
                f"image files have 1 or 3 channels, and the model takes {channels}; give arrays"
            )
        return self.rules

    def from_file(self, path: Path | str) -> np.ndarray:
        """Decode an image file; return uint8 of :attr:`shape`.

        Raises:
            CorruptDataError: it cannot be used; the message does not name the file.
        """
        rules = self.file_rules
        with by_our_rules():
            return np.array(decode(Path(path), rules))

    def from_image(self, image: Picture) -> Tensor:
        """Return an image, or a batch of images, as (N, channels, height, width).

        Integers, booleans and floats that are levels of 0-255 divided by 255, as ``ToTensor``
        makes them, become uint8 and get the size of the model's input, as files do. Other floats
        in 0-1 stay as they are and must have that size.

        Args:
            image: a Pillow image; an array (height, width), (height, width, channels) or (N,
                height, width, channels); or a tensor (height, width), (channels, height, width) or
                (N, channels, height, width).

        Raises:
            CorruptDataError: what was found, and what is allowed.
        """
        if not isinstance(image, np.ndarray | Tensor) or image.ndim != 4:
            return self._single(image)[None]
        if isinstance(image, Tensor) and image.dtype == torch.uint8:  # noqa: SIM102
            if tuple(image.shape[1:]) == self.shape and len(image):
                return image.cpu()
        if not len(image):
            raise CorruptDataError("the batch holds no image")
        images = [self._single(each) for each in image]
        if len({each.dtype for each in images}) > 1:  # one of them happens to consist of levels
            images = [each / 255 if each.dtype == torch.uint8 else each for each in images]
        return torch.stack(images)

    def _single(self, image: Picture) -> Tensor:
        if self.rules.value_range is None and (values := _between_levels(image)) is not None:
            return self._as_it_is(values)
        return torch.from_numpy(np.array(read_image(image, self._items)))

    def _as_it_is(self, values: Tensor) -> Tensor:
        if values.ndim == 2:
            values = values[None]
        if tuple(values.shape) != self.shape:
            raise CorruptDataError(
                f"its image holds floats of shape {tuple(values.shape)}, and the model takes "
                f"{self.shape}; give uint8, which gets the size by itself, or change the size"
            )
        return values


def _between_levels(image: Picture) -> Tensor | None:
    """Return floats in 0-1, (..., height, width), that 8 bits cannot hold; None for all else."""
    if not isinstance(image, np.ndarray | Tensor):
        return None
    if isinstance(image, np.ndarray) and image.dtype.kind != "f":
        return None
    values = torch.as_tensor(np.array(image) if isinstance(image, np.ndarray) else image)
    if not values.is_floating_point() or not values.numel():
        return None
    values = values.detach().cpu().float()
    if isinstance(image, np.ndarray) and values.ndim == 3:
        values = values.permute(2, 0, 1)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # read_image says what is wrong
        return None
    levels = values * 255
    return values if (levels - levels.round()).abs().max() > FROM_LEVEL else None


def images_at(path: Path | str) -> Iterator[str]:
    """Yield a file, or the image files of a folder and its folders, sorted.

    Raises:
        MissingDataError: there is no such file, or a folder without images.
    """
    if not Path(path).is_dir():
        if not Path(path).is_file():
            raise MissingDataError(f"{path}: there is no such file or folder")
        yield str(path)
        return
    images = (file for file, is_image in sorted_files(str(path)) if is_image)
    if (first := next(images, None)) is None:
        raise MissingDataError(f"{path}: the folder holds no images")
    yield first
    yield from images
