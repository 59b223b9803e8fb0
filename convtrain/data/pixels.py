"""From an image as Pillow opens it to 8 bits a channel: one rule for each of Pillow's modes.

docs/data.md states the rules.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from convtrain.errors import CorruptDataError

PIXEL_RULES = 2
"""Version of the rules. Raise it when one changes, and cached images are decoded again."""

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
"""EXIF's orientation: what brings the image upright."""
SIDEWAYS = {5, 6, 7, 8}


def to_eight_bits(
    image: Image.Image,
    channels: int,
    *,
    background: int | Sequence[int],
    value_range: Sequence[float] | None,
) -> Image.Image:
    """Return the first frame of an opened image, upright, in mode L or RGB.

    Args:
        channels: 1 for grey, 3 for colour.
        background: what shows through transparent pixels, 0-255: a grey level, or red, green, blue.
        value_range: the values that become 0 and 255, for images of more than 8 bits a channel;
            without it they are refused.

    Raises:
        CorruptDataError: the image follows no rule; says why and what to do, without its name.
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


def is_deep(image: Image.Image) -> bool:
    """Tell whether the file has more than 8 bits a channel, even if Pillow reads only 8 of them."""
    return (
        image.mode in DEEP
        or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        or max(_tag(image, BITS_PER_SAMPLE), default=8) > 8
    )


def orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; damaged metadata counts as none."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    """Return the values of a tag of a TIFF file; none for another file."""
    value = getattr(image, "tag_v2", {}).get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _refuse_unscaled(image: Image.Image, value_range: Sequence[float] | None) -> None:
    kind = {"I": "32-bit integers", "F": "floats"}.get(image.mode, "16 bits a channel")
    if value_range is None:
        example = "[0,65535], or [0,4095] where the values have 12 bits"
        example = "[LOW,HIGH]" if image.mode in ("I", "F") else example
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
    """Return an image of levels 0-255: ``low`` becomes 0, ``high`` 255, values outside are cut."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise CorruptDataError("holds values that are no numbers (NaN or infinite); replace them")
    levels = (values - low) * (255 / (high - low))
    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))
