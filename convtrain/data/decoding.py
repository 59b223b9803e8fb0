"""From image files to pixels, on all cores: what Pillow reads, brought to one shape."""

import contextlib
import logging
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from convtrain.data.pixels import ON_ITS_SIDE, orientation, to_eight_bits
from convtrain.errors import CorruptDataError, TrainingError, one_line
from convtrain.process.hardware import cores
from convtrain.process.signals import STOP_SIGNALS

log = logging.getLogger("convtrain")

BLOCK = 1 << 20  # bytes that a worker hands over at once
FEW = 4  # blocks that are not worth starting workers for
SPARE = 2  # a JPEG is decoded to no less than twice the size that it is then brought to
MOST_NAMED = 10  # files in one message


class Rules(NamedTuple):
    """What files decode to.

    Attributes:
        shape: channels (1 for grey, 3 for colour), height and width of every image.
        resize: ``crop`` keeps the proportions and cuts the middle, ``stretch`` distorts.
        max_pixels: an image that would decode to more is refused.
        background: what shows through transparent pixels, 0-255: grey, or red, green and blue.
        value_range: the values that become 0 and 255, for images of more than 8 bits a channel;
            without it they are refused.
    """

    shape: Sequence[int]
    resize: str
    max_pixels: int
    background: int | Sequence[int] = 255
    value_range: Sequence[float] | None = None


class Refused(NamedTuple):
    """A file that is not used, and why."""

    path: Path
    reason: str


def decode_all(files: Sequence[Path], rules: Rules) -> Iterator[np.ndarray]:
    """Decode files in their order, by as many processes as there are cores.

    Once a file is refused nothing more is yielded, but the others are still looked at, so that one
    message names all that are wrong.

    Yields:
        The next images, uint8 of shape (n, channels, height, width), about a megabyte of them.

    Raises:
        CorruptDataError: files cannot be decoded, are too large, or follow no rule; names them.
        TrainingError: one of the processes was killed.
    """
    blocks = _Blocks(files, rules)
    loader = DataLoader(
        blocks,
        batch_size=None,
        num_workers=min(cores(), len(blocks)) if len(blocks) > FEW else 0,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),  # one of its own: the weights to come depend on torch's
        # The other ways would run a user's script once more in each worker.
        multiprocessing_context="fork" if sys.platform == "linux" and len(blocks) > FEW else None,
    )
    done, refused = 0, list[Refused]()
    try:
        for block in loader:
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
    """Return a line that names the first of these files, by reason, and counts the others."""
    reasons: dict[str, list[str]] = {}
    for path, reason in refused[:MOST_NAMED]:
        reasons.setdefault(reason, []).append(str(path))
    named = "; ".join(f"{', '.join(paths)}: {reason}" for reason, paths in reasons.items())
    if len(refused) == 1:
        return one_line(named)
    more = f"; and {len(refused) - MOST_NAMED} more" if len(refused) > MOST_NAMED else ""
    return one_line(f"{len(refused)} images cannot be used: {named}{more}")


class _Blocks(Dataset[np.ndarray | list[Refused]]):
    """Files in blocks. What is refused is an item too: raised in a worker, it would be changed."""

    def __init__(self, files: Sequence[Path], rules: Rules) -> None:
        self.files, self.rules = files, rules
        self.length = max(BLOCK // int(np.prod(rules.shape)), 1)

    def __len__(self) -> int:
        return -(-len(self.files) // self.length)

    def __getitem__(self, index: int) -> np.ndarray | list[Refused]:
        files = self.files[index * self.length : (index + 1) * self.length]
        block = np.empty((len(files), *self.rules.shape), dtype=np.uint8)
        refused = []
        with _by_our_rules():
            for place, path in zip(block, files, strict=True):
                try:
                    place[:] = decode(path, self.rules)
                except CorruptDataError as error:
                    refused.append(Refused(path, str(error)))
        return refused or block


def decode(path: Path, rules: Rules) -> np.ndarray:
    """Return one image as uint8 (channels, height, width).

    A JPEG that is several times larger is decoded at a half, a quarter or an eighth of its size,
    and brought from there to the size asked for.

    Raises:
        CorruptDataError: the image is not used; says why, without its name.
    """
    channels, height, width = rules.shape
    try:
        with Image.open(path) as image:
            if image.width * image.height > rules.max_pixels:
                raise CorruptDataError(
                    f"{image.width}x{image.height} pixels are more than "
                    f"data.max_pixels={rules.max_pixels}; remove it, or raise the limit"
                )
            if image.format in ("JPEG", "MPO"):
                size = (SPARE * width, SPARE * height)
                image.draft(None, size[::-1] if orientation(image) in ON_ITS_SIDE else size)
            picture = to_eight_bits(
                image, channels, background=rules.background, value_range=rules.value_range
            )
    except CorruptDataError:
        raise
    except Exception as error:  # of a damaged file, Pillow's readers raise whatever they meet
        reason = str(error).replace(f" {str(path)!r}", "") or type(error).__name__
        raise CorruptDataError(f"cannot be decoded: {reason}; remove or replace it") from error
    if picture.size != (width, height):
        if rules.resize == "crop":
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
        else:
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(picture)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


@contextlib.contextmanager
def _by_our_rules() -> Iterator[None]:
    """Leave it to ``max_pixels`` which images are too large, and to errors what is worth a word."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _as_it_is(block: Any) -> Any:
    return block


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal, and one message about it is enough."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
