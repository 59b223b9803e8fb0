"""Look at image files on all cores: format, mode, size, rule, fingerprint and levels of each."""

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from convtrain.data.blocks import make_blocks
from convtrain.data.decoding import Rules, decode, refuse_large, upright_size
from convtrain.data.file_blocks import FileBlocks, Refused, decoding_workers
from convtrain.data.pixels import rule_in_words
from convtrain.errors import CorruptDataError

FILES_AT_ONCE = 32
ONE_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}  # with the same extensions

Progress = Callable[[int, int], None]
"""Is called with the number of images inspected so far, and the number of all."""


class Kind(NamedTuple):
    """What files have in common, and what becomes of their pixels."""

    format: str
    mode: str
    rule: str


class FileFacts(NamedTuple):
    """What was found in n files, in their order."""

    sizes: np.ndarray  # int32 (n, 2): width and height, upright; 0 if they cannot be read
    kinds: list[Kind | None]  # None of a refused file
    formats_not_named: dict[int, str]  # of files whose extension is that of another format
    fingerprints: np.ndarray  # uint64 (n,), equal for images of the same size and pixels
    sums: np.ndarray  # int64 (n, 2, channels): of the levels 0-255, and of their squares
    refused: dict[int, str]  # reasons
    seconds: float  # that one core decodes


def look_at_files(files: Sequence[Path], rules: Rules, progress: Progress) -> FileFacts:
    """Decode files once, as an evaluation does, without keeping their pixels."""
    blocks = FileBlocks(files, FILES_AT_ONCE, partial(_look, rules))
    found: list[FileFacts] = []
    for facts in make_blocks(blocks, decoding_workers(len(blocks))):
        assert isinstance(facts, FileFacts)
        found.append(facts)
        progress(min(len(found) * FILES_AT_ONCE, len(files)), len(files))
    starts = range(0, len(files), FILES_AT_ONCE)
    return FileFacts(
        np.concatenate([facts.sizes for facts in found]),
        [kind for facts in found for kind in facts.kinds],
        _moved(starts, [facts.formats_not_named for facts in found]),
        np.concatenate([facts.fingerprints for facts in found]),
        np.concatenate([facts.sums for facts in found]),
        _moved(starts, [facts.refused for facts in found]),
        sum(facts.seconds for facts in found),
    )


def _moved(starts: Sequence[int], found: Sequence[dict[int, str]]) -> dict[int, str]:
    return {
        start + place: text
        for start, texts in zip(starts, found, strict=True)
        for place, text in texts.items()
    }


def _look(rules: Rules, files: Sequence[Path], _: int, __: list[Refused]) -> FileFacts:
    facts = FileFacts(
        np.zeros((len(files), 2), dtype=np.int32),
        [None] * len(files),
        {},
        np.zeros(len(files), dtype=np.uint64),
        np.zeros((len(files), 2, rules.shape[0]), dtype=np.int64),
        {},
        0.0,
    )
    seconds = 0.0
    for place, path in enumerate(files):
        kind = _describe(path, rules, facts, place)
        start = time.perf_counter()
        try:
            pixels = decode(path, rules)
        except CorruptDataError as error:
            facts.refused[place] = str(error)
            continue
        finally:
            seconds += time.perf_counter() - start
        facts.kinds[place] = kind
        facts.fingerprints[place] = fingerprint(pixels, *facts.sizes[place].tolist())
        facts.sums[place] = level_sums(pixels[None])
    return facts._replace(seconds=seconds)


def _describe(path: Path, rules: Rules, facts: FileFacts, place: int) -> Kind | None:
    """Read the header of a file; None if that fails, because decoding then says why."""
    try:
        with Image.open(path) as image:
            refuse_large(image, rules)
            kind = Kind(image.format or "", image.mode, rule_in_words(image, rules.shape[0]))
            facts.sizes[place] = upright_size(image)
    except Exception:  # Pillow raises many kinds of errors on damaged files
        return None
    named = Image.registered_extensions().get(path.suffix.lower())
    if named and ONE_FORMAT.get(named, named) != ONE_FORMAT.get(kind.format, kind.format):
        facts.formats_not_named[place] = kind.format
    return kind


def fingerprint(pixels: np.ndarray, *size: int) -> int:
    """Hash an image's pixels, uint8, together with the size that it had."""
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=8)
    digest.update(repr(size).encode())
    return int.from_bytes(digest.digest(), "little")


def level_sums(pixels: np.ndarray) -> np.ndarray:
    """Return the exact sums of levels and of their squares, int64 (2, channels).

    ``pixels`` are uint8 (N, channels, height, width).
    """
    squares = np.square(pixels, dtype=np.uint16)  # at most 255 * 255
    return np.stack([each.sum((0, 2, 3), dtype=np.int64) for each in (pixels, squares)])
