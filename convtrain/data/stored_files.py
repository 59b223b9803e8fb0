"""Images that are stored: files, decoded once on all cores, and items of sizes of their own."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convtrain.config.data_sections import GIB
from convtrain.data.cache import cache_file, cache_folder, cache_key, cached, unnamed
from convtrain.data.crops import StoreRules, stored_size
from convtrain.data.decoding import Rules, decode, decode_stored, refuse_large, upright_size
from convtrain.data.file_blocks import FileBlocks, Refused, Write, decode_all, make_all
from convtrain.data.pixel_file import PixelFile
from convtrain.data.pixels import PIXEL_RULES
from convtrain.data.sized_pixels import SIZE_BYTES, FileBytes, Source, Stored, image_bytes
from convtrain.data.workers import shared
from convtrain.errors import ConfigError, CorruptDataError
from convtrain.process.ranks import rank_info

FILES_MEASURED = 256  # at a time


def decode_files(
    files: Sequence[Path],
    rules: Rules,
    memory_gib: float,
    cache_dir: str | None,
    cache_gib: float,
) -> Tensor | PixelFile:
    """Decode files to images of one size, uint8 (N, *rules.shape).

    Arguments and errors are those of :func:`store_files`.
    """
    bytes_of = torch.full((len(files),), math.prod(rules.shape))
    size = int(bytes_of.sum())
    write = partial(_write_image, rules)
    in_memory = size <= memory_gib * GIB
    if in_memory and rank_info().local_world_size == 1:
        return _in_memory(files, bytes_of, write, memory_gib).view(-1, *rules.shape)
    # One process of a machine decodes with all cores while the others wait.
    path = cached(
        cache_key(files, PIXEL_RULES, *rules.of_stored.items()),
        lambda: decode_all(files, bytes_of, write),
        size=size,
        folder=cache_folder(cache_dir),
        max_gib=cache_gib,
    )
    pixels = PixelFile(path, tuple(rules.shape))
    return pixels.read_all() if in_memory else pixels


def store_files(
    files: Sequence[Path],
    rules: Rules,
    memory_gib: float,
    cache_dir: str | None,
    cache_gib: float,
) -> Source:
    """Decode files to their stored sizes, into memory or into a file of the cache.

    Several processes of one machine always share such a file.

    Args:
        memory_gib: limit of the images in memory.
        cache_dir, cache_gib: folder of the cache, and its limit.

    Raises:
        CorruptDataError: files cannot be decoded or are too large.
        ConfigError: the images fit neither into memory nor into the cache.
    """
    channels, head = rules.shape[0], SIZE_BYTES * len(files)
    key = cache_key(files, PIXEL_RULES, *rules.of_stored.items())
    sizes = None
    with suppress(ConfigError):  # there is no folder for a cache, which may not be needed
        sizes = _sizes_in(cache_file(cache_folder(cache_dir), key), len(files), channels)
    if sizes is None:
        sizes = measure(files, rules)
    bytes_of = image_bytes(sizes, channels)
    size = int(bytes_of.sum())
    write = partial(_write_stored, rules, sizes)
    if size <= memory_gib * GIB and rank_info().local_world_size == 1:
        return Stored(sizes, channels, _in_memory(files, bytes_of, write, memory_gib))
    path = cached(
        key,
        lambda: chain([sizes.numpy()], decode_all(files, bytes_of, write)),
        size=head + size,
        folder=cache_folder(cache_dir),
        max_gib=cache_gib,
    )
    return Stored(sizes, channels, FileBytes(path), start=head)


def _in_memory(files: Sequence[Path], bytes_of: Tensor, write: Write, memory_gib: float) -> Tensor:
    """Decode files into memory that the workers write to; return it, uint8 (bytes,)."""
    size = int(bytes_of.sum())
    try:
        pixels = shared((size,), torch.uint8)
    except (OSError, RuntimeError) as error:  # torch raises the second
        raise ConfigError(
            f"data.memory_gib={memory_gib:g}: the decoded images take {size / GIB:.3g} GiB, which "
            f"this machine cannot give; set a smaller one, and they are read from a file"
        ) from error
    for _ in decode_all(files, bytes_of, write, pixels):
        pass
    return pixels


def _write_image(rules: Rules, path: Path, _: int, image: np.ndarray) -> None:
    image.reshape(rules.shape)[:] = decode(path, rules)


def _write_stored(
    rules: Rules, sizes: Tensor, path: Path, position: int, image: np.ndarray
) -> None:
    found = decode_stored(path, rules)
    if list(found.shape[:2]) != sizes[position].tolist():
        raise CorruptDataError("has changed while it was read; start again")
    image[:] = found.view(-1)


def store_items(
    blocks: Iterator[list[np.ndarray]],
    rules: StoreRules,
    *,
    count: int,
    memory_bytes: float,
    cache_dir: str | None,
    cache_gib: float,
) -> Stored:
    """Store images (height, width, channels) in memory, or all in a file that has no name.

    Args:
        count: of all images.
        memory_bytes: limit of the images in memory.
        cache_dir, cache_gib: folder of that file, and the limit of the folder; see
            :func:`~convtrain.data.cache.spilled`.
    """
    sizes: list[tuple[int, ...]] = []
    kept = bytearray()
    for block in blocks:
        sizes += [image.shape[:2] for image in block]
        for image in block:
            kept += image.data
        if len(kept) > memory_bytes:
            break
    else:
        pixels = torch.frombuffer(kept, dtype=torch.uint8)
        return Stored(torch.tensor(sizes, dtype=torch.int32), rules.shape[0], pixels)

    def rest() -> Iterator[np.ndarray]:
        yield np.frombuffer(kept, dtype=np.uint8)
        for block in blocks:
            sizes.extend(image.shape[:2] for image in block)
            yield from block

    size = len(kept) * count // len(sizes)
    folder = cache_folder(cache_dir)
    file = FileBytes(folder, unnamed(rest(), size, folder, cache_gib))
    return Stored(torch.tensor(sizes, dtype=torch.int32), rules.shape[0], file)


def _sizes_in(path: Path, count: int, channels: int) -> Tensor | None:
    """Return the sizes at the beginning of a cache file; None if it is missing or too short."""
    try:
        with path.open("rb") as file:
            found = np.fromfile(file, dtype=np.int32, count=2 * count)
        length = path.stat().st_size
    except OSError:
        return None
    sizes = torch.from_numpy(found[: len(found) // 2 * 2]).view(-1, 2)
    whole = SIZE_BYTES * count + int(image_bytes(sizes, channels).sum())
    return sizes if len(sizes) == count and length == whole else None


def measure(files: Sequence[Path], rules: Rules) -> Tensor:
    """Read the headers of files; return the height and width that they are stored with, int32.

    The size of a file that cannot be read is (0, 0); decoding it says why.
    """
    blocks = FileBlocks(files, FILES_MEASURED, partial(_measure_block, rules))
    return torch.from_numpy(np.concatenate([*make_all(blocks)]))


def _measure_block(rules: Rules, files: Sequence[Path], _: int, __: list[Refused]) -> np.ndarray:
    sizes = np.zeros((len(files), 2), dtype=np.int32)
    for size, path in zip(sizes, files, strict=True):
        try:
            with Image.open(path) as image:
                refuse_large(image, rules)
                size[:] = stored_size(*upright_size(image), rules)[::-1]
        except Exception:  # Pillow raises many kinds of errors; decoding names the file
            continue
    return sizes
