"""Decode image files with Pillow, to one shape or to a size of their own."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from convtrain.config.data_sections import Interpolation
from convtrain.data.crops import middle, stored, stored_size
from convtrain.data.pixels import SIDEWAYS, orientation, to_eight_bits
from convtrain.errors import CorruptDataError

DRAFT_SCALE = 2  # a JPEG is decoded at no less than twice its final size, then resized


Resize = Literal["crop", "stretch"]


class Rules(NamedTuple):
    """How to decode files; see :func:`~convtrain.data.pixels.to_eight_bits`.

    ``store_size`` keeps images of their own sizes, of which a crop becomes the model's input.
    """

    shape: Sequence[int]  # of the model's input: channels (1 is grey, 3 colour), height, width
    resize: Resize = "crop"  # crop keeps the proportions and cuts the middle
    max_pixels: int = 100_000_000  # larger images are refused
    background: int | Sequence[int] = 255
    value_range: Sequence[float] | None = None
    interpolation: Interpolation = "bilinear"
    store_size: int | None = None  # largest shorter side, in pixels
    eval_crop: float = 0.875  # side of the middle crop, as a part of the largest that fits

    @property
    def of_stored(self) -> dict[str, object]:
        """The rules that decide on the pixels that are stored, beyond their defaults."""
        kept = self._replace(eval_crop=0.875)
        if self.store_size is not None:
            kept = kept._replace(shape=self.shape[:1], resize="crop")
        added = ("interpolation", "store_size", "eval_crop")
        return {
            key: value
            for key, value in kept._asdict().items()
            if key not in added or value != Rules._field_defaults[key]
        }


def decode(path: Path | str, rules: Rules) -> np.ndarray:
    """Return one image as uint8 (channels, height, width) of ``rules.shape``.

    With ``store_size`` that is the middle crop of the stored image, as an evaluation sees it.
    A CorruptDataError says why an image cannot be used, without naming the file.
    """
    if rules.store_size is not None:
        return middle(decode_stored(path, rules), rules).numpy()
    channels, height, width = rules.shape
    picture = _decoded(path, rules, lambda _: (width, height))
    array = np.asarray(resized(picture, (width, height), rules.resize, rules.interpolation))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def decode_stored(path: Path | str, rules: Rules) -> Tensor:
    """Return one image with a shorter side of at most ``store_size``, (height, width, channels).

    Errors are those of :func:`decode`.
    """
    found: list[tuple[int, int]] = []

    def size_of(image: Image.Image) -> tuple[int, int]:
        found.append(stored_size(*upright_size(image), rules))
        return found[-1]

    picture = _decoded(path, rules, size_of)
    return stored(np.array(picture), rules, found[-1])


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height of an opened image after its orientation is applied."""
    turn = orientation(image)
    if image.format == "TIFF" and turn != 1:  # Pillow turns it itself, in load()
        image.load()
        turn = 1
    return image.size[::-1] if turn in SIDEWAYS else image.size


def _decoded(
    path: Path | str, rules: Rules, size_of: Callable[[Image.Image], tuple[int, int]]
) -> Image.Image:
    """Open and decode an image that will get the width and height ``size_of(opened image)``.

    Pillow decodes a JPEG that is several times larger at a half, a quarter or an eighth of its
    size.
    """
    try:
        with Image.open(path) as image:
            refuse_large(image, rules)
            width, height = size_of(image)
            size = (DRAFT_SCALE * width, DRAFT_SCALE * height)
            if image.format in ("JPEG", "MPO") and min(image.size) >= 2 * min(size):
                image.draft(None, size[::-1] if orientation(image) in SIDEWAYS else size)
            return to_eight_bits(
                image,
                rules.shape[0],
                background=rules.background,
                value_range=rules.value_range,
            )
    except CorruptDataError:
        raise
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        reason = getattr(error, "strerror", None) or str(error)
        for name in (str(path), os.path.realpath(path)):  # which of them Pillow names varies
            reason = reason.replace(f" {name!r}", "")
        reason = reason or type(error).__name__
        raise CorruptDataError(f"cannot be decoded: {reason}; remove or replace it") from error


def refuse_large(image: Image.Image, rules: Rules) -> None:
    """Raise CorruptDataError if an opened image has more pixels than ``max_pixels``."""
    if image.width * image.height > rules.max_pixels:
        raise CorruptDataError(
            f"{image.width}x{image.height} pixels are more than "
            f"data.max_pixels={rules.max_pixels}; remove it, or raise the limit"
        )


def resized(
    picture: Image.Image,
    size: tuple[int, int],
    how: Resize,
    interpolation: Interpolation = "bilinear",
) -> Image.Image:
    """Give an image this width and height; ``crop`` keeps its proportions and cuts the middle."""
    if picture.size == size:
        return picture
    resize = ImageOps.fit if how == "crop" else Image.Image.resize
    return resize(picture, size, Image.Resampling[interpolation.upper()])


@contextlib.contextmanager
def by_our_rules() -> Iterator[None]:
    """Make ``max_pixels`` the only limit on an image's size, and hide Pillow's warnings."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
