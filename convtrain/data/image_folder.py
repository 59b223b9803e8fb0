"""Images of one's own, in folders named by class, decoded once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convtrain.config.folders import IMAGE_SUFFIXES, refuse_outside, training_folder
from convtrain.data.cache import GIB, cached, default_folder, fingerprint
from convtrain.data.decoding import Rules, decode_all
from convtrain.data.images import Images, Splits, divide_labels
from convtrain.data.pixel_file import PixelFile
from convtrain.data.pixels import PIXEL_RULES
from convtrain.errors import MissingDataError
from convtrain.ranks import rank_info


def load_image_folder(
    *,
    root: str,
    classes: list[str],
    shape: list[int],
    resize: str,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    memory_gib: float,
    max_pixels: int,
    background: int | Sequence[int] = 255,
    value_range: Sequence[float] | None = None,
    limit: int | None = None,
    cache_dir: str | None = None,
    cache_gib: float = 50.0,
) -> Splits:
    """Decode a folder of images: ``root/train`` with ``root/test``, or ``root`` alone, to be split.

    Args:
        shape: channels (1 for grey, 3 for colour), height and width of every image.
        resize: ``crop`` keeps the proportions and cuts the middle, ``stretch`` distorts.
        memory_gib: where all splits together decode to no more, they are kept in memory; else in
            a file, from which batches are read.
        max_pixels, background, value_range: see :class:`~convtrain.data.decoding.Rules`.
        limit: decode only the first N images of each split.
            Several processes of one machine decode into that file in any case, once for all.
        cache_dir: folder of such files; null for one in the user's folder of caches.
        cache_gib: that they may take together.

    Raises:
        MissingDataError: a folder is missing or holds no images, or a link leads out of ``root``.
        CorruptDataError: an image cannot be decoded or is too large; names the file.
        ConfigError: the images fit neither into memory nor into the cache.
    """
    folder, held_out = training_folder(Path(root)), Path(root) / "test"
    files, labels = _find(folder, classes, Path(root))
    parts = divide_labels(
        labels,
        val_fraction=val_fraction,
        test_fraction=None if folder != Path(root) and held_out.is_dir() else test_fraction,
        seed=split_seed,
    )
    if parts[2] is None:
        more, more_labels = _find(held_out, classes, Path(root))
        parts = (*parts[:2], torch.arange(len(files), len(files) + len(more)))
        files, labels = files + more, torch.cat([labels, more_labels])

    # Split by split, so that each is a part of one tensor or file, and nothing is copied.
    chosen = [part[:limit] for part in parts if part is not None]
    order = torch.cat(chosen)
    files, labels = [files[index] for index in order.tolist()], labels[order]
    size = len(files) * int(np.prod(shape))
    rules = Rules(shape, resize, max_pixels, background, value_range)

    def blocks() -> Iterator[np.ndarray]:
        return decode_all(files, rules)

    in_memory = size <= memory_gib * GIB
    if in_memory and rank_info().local_world_size == 1:
        pixels: Tensor | PixelFile = _gathered(blocks(), (len(files), *shape))
    else:  # of several processes on a machine, one decodes with all cores, and the others wait
        cache = Path(cache_dir) if cache_dir else default_folder()
        name = fingerprint(files, PIXEL_RULES, *rules._asdict().items())
        path = cached(name, blocks, size=size, folder=cache, most=cache_gib)
        file = PixelFile(path, tuple(shape))
        pixels = file.read(torch.arange(len(file))) if in_memory else file
    everything, splits, start = Images(pixels, labels), [], 0
    for part in chosen:
        splits.append(everything.part(slice(start, start + len(part))))
        start += len(part)
    return Splits(*splits)


def _gathered(blocks: Iterator[np.ndarray], shape: tuple[int, ...]) -> Tensor:
    pixels, start = np.empty(shape, dtype=np.uint8), 0
    for block in blocks:
        pixels[start : start + len(block)] = block
        start += len(block)
    return torch.from_numpy(pixels)


def _find(folder: Path, classes: list[str], root: Path) -> tuple[list[Path], Tensor]:
    """Return the files of all classes, in order, and their labels."""
    files = [
        (path, label) for label, name in enumerate(classes) for path in _images(folder / name, root)
    ]
    if not files:
        raise MissingDataError(
            f"{folder} holds no images; expected {folder}/{classes[0]}/*.jpg "
            f"(or {', '.join(IMAGE_SUFFIXES[2:])}) and one such folder for each class"
        )
    return [path for path, _ in files], torch.tensor([label for _, label in files])


def _images(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the images below a folder; directories that are links are not entered."""
    if not folder.is_dir():
        return
    refuse_outside(folder, root)
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        if path.is_symlink():
            refuse_outside(path, root)
        yield path
