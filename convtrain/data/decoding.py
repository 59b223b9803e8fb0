"""From image files to pixels, on all cores: what Pillow reads, brought to one shape."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from convtrain.errors import CorruptDataError, TrainingError
from convtrain.signals import NAMES

BLOCK = 1 << 20  # bytes that a worker hands over at once
FEW = 4  # blocks that are not worth starting workers for
SPARE = 2  # a JPEG is decoded to no less than twice the size that it is then brought to


def decode_all(
    files: Sequence[Path], *, shape: Sequence[int], resize: str, max_pixels: int
) -> Iterator[np.ndarray]:
    """Decode files in their order, by as many processes as there are cores.

    Args:
        shape: channels (1 for grey, 3 for colour), height and width of every image.
        resize: ``crop`` keeps the proportions and cuts the middle, ``stretch`` distorts.
        max_pixels: an image that would decode to more is refused.

    Yields:
        The next images, uint8 of shape (n, channels, height, width), about a megabyte of them.

    Raises:
        CorruptDataError: a file cannot be decoded or is too large; names it.
        TrainingError: one of the processes was killed.
    """
    blocks = _Blocks(files, list(shape), resize, max_pixels)
    loader = DataLoader(
        blocks,
        batch_size=None,
        num_workers=min(_cores(), len(blocks)) if len(blocks) > FEW else 0,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),  # one of its own: the weights to come depend on torch's
        # The other ways would run a user's script once more in each worker.
        multiprocessing_context="fork" if sys.platform == "linux" and len(blocks) > FEW else None,
    )
    done = 0
    try:
        for block in loader:
            if isinstance(block, CorruptDataError):
                raise block
            yield block
            done += len(block)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"{files[done]}: a process that decodes images was killed here or a little further, "
            f"after {done} of {len(files)} images; was the memory full? try again"
        ) from error


class _Blocks(Dataset[np.ndarray | CorruptDataError]):
    """Files in blocks. An error is an item as well: raised in a worker, it would lose its line."""

    def __init__(
        self, files: Sequence[Path], shape: list[int], resize: str, max_pixels: int
    ) -> None:
        self.files, self.shape = files, shape
        self.resize, self.max_pixels = resize, max_pixels
        self.length = max(BLOCK // int(np.prod(shape)), 1)

    def __len__(self) -> int:
        return -(-len(self.files) // self.length)

    def __getitem__(self, index: int) -> np.ndarray | CorruptDataError:
        files = self.files[index * self.length : (index + 1) * self.length]
        block = np.empty((len(files), *self.shape), dtype=np.uint8)
        try:
            with _any_size():
                for place, path in zip(block, files, strict=True):
                    place[:] = decode(path, self.shape, self.resize, self.max_pixels)
        except CorruptDataError as error:
            return CorruptDataError(str(error))
        return block


def decode(path: Path, shape: Sequence[int], resize: str, max_pixels: int) -> np.ndarray:
    """Return one image as uint8 (channels, height, width).

    A JPEG that is several times larger is decoded at a half, a quarter or an eighth of its size,
    and brought from there to the size asked for.
    """
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise CorruptDataError(
                    f"{path}: {image.width}x{image.height} pixels are more than "
                    f"data.max_pixels={max_pixels}; remove it, or raise the limit"
                )
            image.draft(None, (SPARE * width, SPARE * height))
            picture = image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptDataError(
            f"{path}: cannot be decoded: {error}; remove or replace it"
        ) from error
    if picture.size != (width, height):
        if resize == "crop":
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
        else:
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(picture)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Leave it to ``max_pixels`` which images are too large, with their size in the message."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _as_it_is(block: Any) -> Any:
    return block


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal, and one message about it is enough."""
    for name in NAMES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
