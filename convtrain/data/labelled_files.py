"""Labelled image files, decoded once and divided into the splits of a run."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from convtrain.config.folders import SPLITS
from convtrain.config.groups.data import GIB
from convtrain.data.blocks import gather
from convtrain.data.cache import cache_key, cached, default_folder
from convtrain.data.decoding import Rules, decode_all
from convtrain.data.images import Images, Splits, divide_labels, sample_stratified
from convtrain.data.pixel_file import PixelFile
from convtrain.data.pixels import PIXEL_RULES
from convtrain.process.ranks import rank_info


class LabelledFiles(NamedTuple):
    """The image files of a source, and their labels."""

    files: list[Path]
    labels: Tensor  # int64 class indices (N,), or float32 (N, classes) in 0-1
    splits: dict[str, Tensor]  # indices, int64; train, and those of val and test that there are


def read_files(
    found: LabelledFiles,
    rules: Rules,
    *,
    classes: list[str],
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    memory_gib: float,
    limit: int | None,
    cache_dir: str | None,
    cache_gib: float,
    divides: bool,
) -> Splits:
    """Divide the training files into the splits that are missing, and decode all files.

    Without test files, the files of a val split are the test images.

    Args:
        memory_gib: limit of all splits together, above which batches are read from a file. Several
            processes of one machine always decode into such a file, once for all of them.
        limit: decode N images of each split, in the proportions of the classes.
        cache_dir: folder of these files; None selects the user's cache folder.
        cache_gib: limit of these files together.
        divides: False makes one split of all images, which is each of the three.

    Raises:
        CorruptDataError: an image cannot be decoded or is too large.
        ConfigError: the images fit neither into memory nor into the cache, or a class has too few
            images to be divided.
    """
    files, labels, given = found
    if divides:
        train = given["train"]
        parts = divide_labels(
            labels[train],
            val_fraction=None if "val" in given else val_fraction,
            test_fraction=test_fraction if given.keys() == {"train"} else None,
            seed=split_seed,
            names=classes,
        )
        splits = given | {name: train[part] for name, part in parts.items()}
    else:
        splits = {"train": torch.arange(len(files))}
    if limit:
        for name, part in splits.items():
            splits[name] = part[sample_stratified(labels[part], limit, split_seed)]

    # Ordered by split, so that each split is a slice of one tensor or file.
    parts = {name: splits[name] for name in SPLITS if name in splits}
    order = torch.cat(list(parts.values()))
    files = [files[index] for index in order.tolist()]
    size = len(files) * math.prod(rules.shape)
    in_memory = size <= memory_gib * GIB
    pixels: Tensor | PixelFile
    if in_memory and rank_info().local_world_size == 1:
        pixels = gather(decode_all(files, rules), (len(files), *rules.shape))
    else:  # one process of a machine decodes with all cores while the others wait
        path = cached(
            cache_key(files, PIXEL_RULES, *rules._asdict().items()),
            lambda: decode_all(files, rules),
            size=size,
            folder=Path(cache_dir) if cache_dir else default_folder(),
            max_gib=cache_gib,
        )
        pixels = PixelFile(path, tuple(rules.shape))
        if in_memory:
            pixels = pixels.read_all()
    images = Images(pixels, labels[order]).split([len(part) for part in parts.values()])
    if not divides:
        return Splits(images[0], images[0], images[0])
    train_images, val, *test = images
    return (
        Splits(train_images, val, test[0]) if test else Splits(train_images, val, val, tested="val")
    )
