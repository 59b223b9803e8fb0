"""Images in a page: as a data URI, and as a grid of pictures with their captions."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from convtrain.pages.page import draw

TINY = 128  # pixels; a smaller image is enlarged without blur


@dataclass(frozen=True)
class Picture:
    """A picture of a grid: ``pixels`` as in ``data_uri``, a title and a caption below it."""

    pixels: np.ndarray
    title: str = ""
    caption: str = ""


def data_uri(pixels: np.ndarray) -> str:
    """Return uint8 pixels (H, W) or (C, H, W), with 1, 3 or 4 channels, as a PNG in a URI."""
    if pixels.ndim == 3:
        pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def image_grid(
    title: str, pictures: Sequence[Picture], *, size: int = 84, note: str = ""
) -> Markup:
    """Return a figure of pictures, each at least ``size`` CSS pixels wide."""
    shown = [(data_uri(each.pixels), each, _is_tiny(each.pixels)) for each in pictures]
    ratio = _ratio(pictures[0].pixels) if pictures else 1.0
    return draw("pictures", title=title, note=note, size=size, ratio=ratio, pictures=shown)


def _ratio(pixels: np.ndarray) -> float:
    height, width = pixels.shape[-2:]
    return round(width / height, 3)


def _is_tiny(pixels: np.ndarray) -> bool:
    return max(pixels.shape[-2:]) < TINY
