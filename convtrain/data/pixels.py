"""Conversion of Pillow's image modes to 8 bits a channel; docs/data.md states the rules."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from convtrain.errors import CorruptDataError

PIXEL_RULES = 2
"""Version of the rules; raising it invalidates the cache of decoded images."""

EIGHT_BITS = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}
WITH_ALPHA = {"LA", "PA", "RGBA", "RGBa"}
DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}

ORIENTATION, PHOTOMETRIC, SAMPLE_FORMAT, BITS_PER_SAMPLE = 274, 262, 339, 258  # tags of TIFF
WHITE_IS_ZERO, SIGNED = 0, 2
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the transpose that turns the image upright."""
SIDEWAYS = {5, 6, 7, 8}


def to_eight_bits(
    image: Image.Image,
    channels: int,
    *,
    background: int | Sequence[int],
    value_range: Sequence[float] | None,
) -> Image.Image:
    """Return the first frame of an opened image, upright, in mode L or RGB.

    Transparent pixels show the ``background``, 0-255: a grey level, or red, green and blue.
    ``value_range`` holds the values that become 0 and 255 in images of more than 8 bits a channel.
    A CorruptDataError says that it is missing, or that the mode is not supported.
    """
    if is_deep(image):
        _refuse_unscaled(image, value_range)
    elif image.mode not in EIGHT_BITS | WITH_ALPHA or SIGNED in _tag(image, SAMPLE_FORMAT):
        raise CorruptDataError(
            f"no rule for images of mode {image.mode}; convert it to 8 bits, RGB"
        )
    white_is_zero = WHITE_IS_ZERO in _tag(image, PHOTOMETRIC)
    image.load()
    turn = UPRIGHT.get(orientation(image))  # Pillow turns TIFF images itself, in load()
    if image.mode in DEEP:
        assert value_range is not None
        image = _scaled(image, *(reversed(value_range) if white_is_zero else value_range))
    elif image.mode in WITH_ALPHA or "transparency" in image.info:
        colour = (background,) * 3 if isinstance(background, int) else tuple(background)
        ground = Image.new("RGBA", image.size, (*colour, 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    picture = image.convert("L" if channels == 1 else "RGB")
    return picture.transpose(turn) if turn is not None else picture


def rule_in_words(image: Image.Image, channels: int) -> str:
    """Say what :func:`to_eight_bits` does with an opened image that it does not refuse."""
    final = "L" if channels == 1 else "RGB"
    words = []
    if getattr(image, "is_animated", False):
        words.append("the first frame")
    if image.mode in DEEP:
        words.append("scaled by data.value_range")
    elif is_deep(image):
        words.append("the upper 8 of 16 bits")
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        words.append("over data.background")
    if image.mode != final and image.mode not in DEEP:
        words.append("to grey" if channels == 1 else "to RGB")
    if orientation(image) in UPRIGHT:
        words.append("turned upright")
    return ", ".join(words) or "as it is"


def is_deep(image: Image.Image) -> bool:
    """Tell whether the file has more than 8 bits a channel, even if Pillow reads only 8 of them."""
    return (
        image.mode in DEEP
        or _has_16_bits(image)
        or max(_tag(image, BITS_PER_SAMPLE), default=8) > 8
    )


def _has_16_bits(image: Image.Image) -> bool:
    """Tell whether the file has 16 bits a channel, even if Pillow reads them as 32 (mode I)."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; damaged metadata counts as 1."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _refuse_unscaled(image: Image.Image, value_range: Sequence[float] | None) -> None:
    mode = "I;16" if _has_16_bits(image) else image.mode
    kind = {"I": "32-bit integers", "F": "floats"}.get(mode, "16 bits a channel")
    if value_range is None:
        example = "[0,65535], or [0,4095] where the values have 12 bits"
        example = "[LOW,HIGH]" if mode in ("I", "F") else example
        raise CorruptDataError(
            f"has {kind}; say which values become black and white: data.value_range={example}"
        )
    if image.mode not in DEEP and list(value_range) != [0, 65535]:
        raise CorruptDataError(
            "has 16 bits a channel in colour, of which Pillow reads the upper 8; set "
            "data.value_range=[0,65535], or convert it to 8 bits"
        )
    if "transparency" in image.info:
        raise CorruptDataError(f"has {kind} and a transparent colour; convert it to 8 bits")


def _scaled(image: Image.Image, low: float, high: float) -> Image.Image:
    """Map ``low`` to 0 and ``high`` to 255, and clip the values outside."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise CorruptDataError("holds values that are no numbers (NaN or infinite); replace them")
    levels = (values - low) * (255 / (high - low))
    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))
