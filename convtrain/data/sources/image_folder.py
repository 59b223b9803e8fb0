"""A folder of images with one subfolder for each class, decoded once."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from convtrain.config.folders import SPLITS, read_layout
from convtrain.config.groups.data import GIB
from convtrain.config.image_files import images_in, loose_images
from convtrain.data.blocks import gather
from convtrain.data.cache import cache_key, cached, default_folder
from convtrain.data.decoding import Rules, decode_all
from convtrain.data.images import Images, Splits, divide_labels, sample_stratified
from convtrain.data.pixel_file import PixelFile
from convtrain.data.pixels import PIXEL_RULES
from convtrain.errors import MissingDataError, few, one_line
from convtrain.process.ranks import rank_info

log = logging.getLogger("convtrain")


def load(
    *,
    root: str,
    classes: list[str],
    shape: list[int],
    resize: Literal["crop", "stretch"],
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
    divides: bool = True,
) -> Splits:
    """Decode ``root``, which is either split, or has folders train, val and test.

    Without a test folder, the images of a val folder are the test images.

    Args:
        shape, resize, max_pixels, background, value_range: see :mod:`convtrain.data.decoding`.
        memory_gib: limit of all splits together, above which batches are read from a file. Several
            processes of one machine always decode into such a file, once for all of them.
        limit: decode N images of each split, in the proportions of the classes.
        cache_dir: folder of these files; None selects the user's cache folder.
        cache_gib: limit of these files together.
        divides: False makes one split of all images, which is each of the three.

    Raises:
        MissingDataError: a folder is missing or holds no images, or a link leads out of ``root``.
        CorruptDataError: an image cannot be decoded or is too large.
        ConfigError: the images fit neither into memory nor into the cache.
    """
    found = _find(Path(root), classes)
    own_folder = found.splits.keys()
    if divides:
        splits = found.splits | divide_labels(
            found.labels[found.splits["train"]],  # these are the first images
            val_fraction=None if "val" in own_folder else val_fraction,
            test_fraction=test_fraction if own_folder == {"train"} else None,
            seed=split_seed,
            names=classes,
        )
    else:
        splits = {"train": torch.arange(len(found.files))}
    if limit:
        for name, part in splits.items():
            splits[name] = part[sample_stratified(found.labels[part], limit, split_seed)]

    # Ordered by split, so that each split is a slice of one tensor or file.
    parts = {name: splits[name] for name in SPLITS if name in splits}
    order = torch.cat(list(parts.values()))
    files = [found.files[index] for index in order.tolist()]
    rules = Rules(shape, resize, max_pixels, background, value_range)
    size = len(files) * math.prod(shape)
    in_memory = size <= memory_gib * GIB
    pixels: Tensor | PixelFile
    if in_memory and rank_info().local_world_size == 1:
        pixels = gather(decode_all(files, rules), (len(files), *shape))
    else:  # one process of a machine decodes with all cores while the others wait
        path = cached(
            cache_key(files, PIXEL_RULES, *rules._asdict().items()),
            lambda: decode_all(files, rules),
            size=size,
            folder=Path(cache_dir) if cache_dir else default_folder(),
            max_gib=cache_gib,
        )
        pixels = PixelFile(path, tuple(shape))
        if in_memory:
            pixels = pixels.read_all()
    images = Images(pixels, found.labels[order]).split([len(part) for part in parts.values()])
    if not divides:
        return Splits(images[0], images[0], images[0])
    train, val, *test = images
    return Splits(train, val, test[0]) if test else Splits(train, val, val, tested="val")


class _Found(NamedTuple):
    """Files and labels of all images, and the indices of each split that has a folder."""

    files: list[Path]
    labels: Tensor
    splits: dict[str, Tensor]


def _find(root: Path, classes: list[str]) -> _Found:
    files, labels, splits = list[Path](), list[int](), dict[str, Tensor]()
    others, loose = list[Path](), list[Path]()
    for split, folder in read_layout(root, classes).splits.items():
        start, empty = len(files), []
        for label, name in enumerate(classes):
            images, left_out = images_in(folder / name, root)
            if not images:
                empty.append(name)
            files += images
            labels += [label] * len(images)
            others += left_out
        if start == len(files):
            raise MissingDataError(
                f"data.root={root}: {folder} holds no images; expected {folder}/{classes[0]}/*.jpg "
                f"and one such folder for each class"
            )
        if empty:
            rank_zero_only(log.warning)("%s has no images of %s", folder, few(empty))
        loose += loose_images(folder)
        splits[split] = torch.arange(start, len(files))
    for paths, why in ((others, "no images, or links to folders"), (loose, "in no class folder")):
        if paths:
            named = one_line(few((str(path.relative_to(root)) for path in paths), most=3))
            rank_zero_only(log.warning)(
                "data.root=%s: left out %d files that are %s: %s", root, len(paths), why, named
            )
    return _Found(files, torch.tensor(labels), splits)
