"""Images of one's own, in folders named by class, decoded once."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from convtrain.config.folders import SPLITS, read_layout
from convtrain.config.image_files import images_in, loose_images
from convtrain.data.cache import GIB, cached, default_folder, fingerprint
from convtrain.data.decoding import Rules, decode_all
from convtrain.data.images import Images, Splits, divide_labels, sample_stratified
from convtrain.data.pixel_file import PixelFile
from convtrain.data.pixels import PIXEL_RULES
from convtrain.errors import MissingDataError, few, one_line
from convtrain.process.ranks import rank_info

log = logging.getLogger("convtrain")


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
    """Decode a folder of images: ``root`` itself, to be split, or its train, val and test.

    Without a test folder, the images of a val folder are those that are tested.

    Args:
        shape: channels (1 for grey, 3 for colour), height and width of every image.
        resize: ``crop`` keeps the proportions and cuts the middle, ``stretch`` distorts.
        memory_gib: where all splits together decode to no more, they are kept in memory; else in
            a file, from which batches are read. Several processes of one machine decode into that
            file in any case, once for all.
        max_pixels, background, value_range: see :class:`~convtrain.data.decoding.Rules`.
        limit: decode only N images of each split, of the classes in proportion.
        cache_dir: folder of such files; null for one in the user's folder of caches.
        cache_gib: that they may take together.

    Raises:
        MissingDataError: a folder is missing or holds no images, or a link leads out of ``root``.
        CorruptDataError: an image cannot be decoded or is too large; names the file.
        ConfigError: the images fit neither into memory nor into the cache.
    """
    found = _find(Path(root), classes)
    own = found.places.keys()  # the splits that have a folder
    labels = torch.tensor(found.labels)
    train, val, test = divide_labels(
        labels[found.places["train"]],
        val_fraction=None if "val" in own else val_fraction,
        test_fraction=test_fraction if own == {"train"} else None,
        seed=split_seed,
        names=classes,
    )
    places = found.places | {"train": train}
    places |= {name: part for name, part in (("val", val), ("test", test)) if part is not None}

    # Split by split, so that each is a part of one tensor or file, and nothing is copied.
    chosen = {
        split: part[sample_stratified(labels[part], limit, split_seed)] if limit else part
        for split, part in ((name, places[name]) for name in SPLITS if name in places)
    }
    order = torch.cat(list(chosen.values()))
    files, labels = [found.files[index] for index in order.tolist()], labels[order]
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
    everything, splits, start = Images(pixels, labels), dict[str, Images](), 0
    for split, part in chosen.items():
        splits[split] = everything.part(slice(start, start + len(part)))
        start += len(part)
    if "test" in splits:
        return Splits(splits["train"], splits["val"], splits["test"])
    return Splits(splits["train"], splits["val"], splits["val"], tested="val")


def _gathered(blocks: Iterator[np.ndarray], shape: tuple[int, ...]) -> Tensor:
    pixels, start = np.empty(shape, dtype=np.uint8), 0
    for block in blocks:
        pixels[start : start + len(block)] = block
        start += len(block)
    return torch.from_numpy(pixels)


class _Found(NamedTuple):
    """Files and labels of all splits, and the places in them of each split that has a folder."""

    files: list[Path]
    labels: list[int]
    places: dict[str, Tensor]


def _find(root: Path, classes: list[str]) -> _Found:
    """List the images, and say what is left out."""
    files, labels, places = list[Path](), list[int](), {}
    others, loose = list[Path](), list[Path]()
    for split, folder in read_layout(root, classes).splits.items():
        start, without = len(files), []
        for label, name in enumerate(classes):
            images, left_out = (
                images_in(folder / name, root) if (folder / name).is_dir() else ([], [])
            )
            if not images:
                without.append(name)
            files += images
            labels += [label] * len(images)
            others += left_out
        if start == len(files):
            raise MissingDataError(
                f"data.root={root}: {folder} holds no images; expected {folder}/{classes[0]}/*.jpg "
                f"and one such folder for each class"
            )
        if without:
            rank_zero_only(log.warning)("%s has no images of %s", folder, few(without))
        loose += loose_images(folder)
        places[split] = torch.arange(start, len(files))
    for paths, why in ((others, "no images, or links to folders"), (loose, "in no class folder")):
        if paths:
            named = one_line(few((str(path.relative_to(root)) for path in paths), most=3))
            rank_zero_only(log.warning)(
                "data.root=%s: left out %d files that are %s: %s", root, len(paths), why, named
            )
    return _Found(files, labels, places)
