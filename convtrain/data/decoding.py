"""Decode image files with Pillow to one shape, on all cores."""

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from convtrain.data.blocks import BLOCK_BYTES, make_blocks
from convtrain.data.pixels import SIDEWAYS, orientation, to_eight_bits
from convtrain.errors import CorruptDataError, TrainingError, one_line
from convtrain.process.hardware import cores

log = logging.getLogger("convtrain")

MIN_BLOCKS_FOR_WORKERS = 5
DRAFT_SCALE = 2  # a JPEG is decoded at no less than twice its final size, then resized
MAX_NAMED = 10  # files in one message


Resize = Literal["crop", "stretch"]


class Rules(NamedTuple):
    """How to decode files; see :func:`~convtrain.data.pixels.to_eight_bits`."""

    shape: Sequence[int]  # channels (1 for grey, 3 for colour), height, width
    resize: Resize = "crop"  # crop keeps the proportions and cuts the middle
    max_pixels: int = 100_000_000  # larger images are refused
    background: int | Sequence[int] = 255
    value_range: Sequence[float] | None = None


Refused = tuple[Path, str]
"""A file that cannot be used, and the reason."""

Block = np.ndarray | list[Refused]


def decode_all(files: Sequence[Path], rules: Rules) -> Iterator[np.ndarray]:
    """Decode files in order, with one process per core; yield about a megabyte of images at a time.

    A block is uint8 of shape (n, channels, height, width). After the first refused file, the rest
    are checked but not yielded, so that one CorruptDataError names all of them. A TrainingError
    says that a worker process was killed.
    """
    blocks = _Blocks(files, rules)
    workers = min(cores(), len(blocks)) if len(blocks) >= MIN_BLOCKS_FOR_WORKERS else 0
    done, refused = 0, list[Refused]()
    try:
        for block in make_blocks(blocks, workers):
            done += blocks.length
            if isinstance(block, list):
                if not refused:
                    log.warning("%s; looking at the other images", _complaint(block[:1]))
                refused += block
            elif not refused:
                yield block
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"{files[done]}: a process that decodes images was killed here or a little further, "
            f"after {done} of {len(files)} images; was the memory full? try again"
        ) from error
    if refused:
        raise CorruptDataError(_complaint(refused))


def _complaint(refused: Sequence[Refused]) -> str:
    reasons: dict[str, list[str]] = {}
    for path, reason in refused[:MAX_NAMED]:
        reasons.setdefault(reason, []).append(str(path))
    named = "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in reasons.items())
    if len(refused) == 1:
        return one_line(named)
    more = f"; and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
    return one_line(f"{len(refused)} images cannot be used: {named}{more}")


class _Blocks(Dataset[Block]):
    """Blocks of files. A refused file is an item, because DataLoader rewraps a worker's errors."""

    def __init__(self, files: Sequence[Path], rules: Rules) -> None:
        self.files, self.rules = files, rules
        self.length = max(BLOCK_BYTES // math.prod(rules.shape), 1)

    def __len__(self) -> int:
        return math.ceil(len(self.files) / self.length)

    def __getitem__(self, index: int) -> Block:
        files = self.files[index * self.length : (index + 1) * self.length]
        block = np.empty((len(files), *self.rules.shape), dtype=np.uint8)
        refused = []
        with by_our_rules():
            for image, path in zip(block, files, strict=True):
                try:
                    image[:] = decode(path, self.rules)
                except CorruptDataError as error:
                    refused.append((path, str(error)))
        return refused or block


def decode(path: Path | str, rules: Rules) -> np.ndarray:
    """Return one image as uint8 (channels, height, width).

    Pillow decodes a JPEG that is several times larger at a half, a quarter or an eighth of its
    size. A CorruptDataError says why an image cannot be used, without naming the file.
    """
    channels, height, width = rules.shape
    try:
        with Image.open(path) as image:
            if image.width * image.height > rules.max_pixels:
                raise CorruptDataError(
                    f"{image.width}x{image.height} pixels are more than "
                    f"data.max_pixels={rules.max_pixels}; remove it, or raise the limit"
                )
            size = (DRAFT_SCALE * width, DRAFT_SCALE * height)
            if image.format in ("JPEG", "MPO") and min(image.size) >= 2 * min(size):
                image.draft(None, size[::-1] if orientation(image) in SIDEWAYS else size)
            picture = to_eight_bits(
                image, channels, background=rules.background, value_range=rules.value_range
            )
    except CorruptDataError:
        raise
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        reason = str(error).replace(f" {str(path)!r}", "") or type(error).__name__
        raise CorruptDataError(f"cannot be decoded: {reason}; remove or replace it") from error
    array = np.asarray(resized(picture, (width, height), rules.resize))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def resized(picture: Image.Image, size: tuple[int, int], how: Resize) -> Image.Image:
    """Give an image this width and height; ``crop`` keeps its proportions and cuts the middle."""
    if picture.size == size:
        return picture
    resize = ImageOps.fit if how == "crop" else Image.Image.resize
    return resize(picture, size, Image.Resampling.BILINEAR)


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
