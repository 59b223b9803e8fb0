"""Images that are stored with sizes of their own: files, decoded on all cores, and items."""

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
from convtrain.data.blocks import AHEAD, BLOCK_BYTES, gather
from convtrain.data.cache import cache_file, cache_folder, cache_key, cached, unnamed
from convtrain.data.crops import StoreRules, stored_size
from convtrain.data.decoding import (
    Rules,
    decode_stored,
    refuse_large,
    upright_size,
)
from convtrain.data.file_blocks import FileBlocks, Refused, decoding_workers, make_all
from convtrain.data.pixels import PIXEL_RULES
from convtrain.data.sized_pixels import SIZE_BYTES, FileBytes, Source, Stored, image_bytes
from convtrain.data.workers import shared
from convtrain.errors import ConfigError, CorruptDataError
from convtrain.process.ranks import rank_info

FILES_MEASURED = 256  # at a time


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
    size = int(image_bytes(sizes, channels).sum())
    if size <= memory_gib * GIB and rank_info().local_world_size == 1:
        pixels = gather(decode_stored_all(files, sizes, rules), (size,))
        return Stored(sizes, channels, pixels)
    path = cached(
        key,
        lambda: chain([sizes.numpy()], decode_stored_all(files, sizes, rules)),
        size=head + size,
        folder=cache_folder(cache_dir),
        max_gib=cache_gib,
    )
    return Stored(sizes, channels, FileBytes(path), start=head)


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


def decode_stored_all(files: Sequence[Path], sizes: Tensor, rules: Rules) -> Iterator[np.ndarray]:
    """Decode files in order; yield the bytes of several images at a time, uint8 (bytes,).

    Worker processes write into memory that they share with this one, so what is yielded is valid
    until the next block. Errors are those of :func:`~convtrain.data.file_blocks.make_all`.

    Args:
        sizes: what :func:`measure` has returned.
    """
    bytes_of = image_bytes(sizes, rules.shape[0])
    length = max(BLOCK_BYTES * len(files) // max(int(bytes_of.sum()), 1), 1)
    ends = [int(part.sum()) for part in bytes_of.split(length)]
    workers = decoding_workers(len(ends))
    slots = shared((AHEAD * max(workers, 1) + 1, max(ends)), torch.uint8)
    blocks = FileBlocks(files, length, partial(_fill, slots, sizes, length, rules))
    for index, count in enumerate(make_all(blocks)):
        yield slots[index % len(slots), :count].numpy()


def _fill(
    slots: Tensor, sizes: Tensor, length: int, rules: Rules, files: Sequence[Path], index: int,
    refused: list[Refused],
) -> int:  # fmt: skip
    """Decode files into the slot of a block; return the number of bytes."""
    slot, start, channels = slots[index % len(slots)], 0, rules.shape[0]
    for path, (height, width) in zip(files, sizes[index * length :].tolist(), strict=False):
        try:
            image = decode_stored(path, rules)
            if tuple(image.shape) != (height, width, channels):
                raise CorruptDataError("has changed while it was read; start again")
            slot[start : start + image.numel()] = image.view(-1)
            start += image.numel()
        except CorruptDataError as error:
            refused.append((path, str(error)))
    return start
