"""Labelled image files, decoded once and divided into the splits of a run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from convtrain.config.data_sections import Fold
from convtrain.config.folders import SPLITS
from convtrain.data.decoding import Rules
from convtrain.data.images import (
    Images,
    Pixels,
    Splits,
    divide_labels,
    sample_stratified,
)
from convtrain.data.sized_pixels import Decoded, Source, of_all
from convtrain.data.stored_files import decode_files, store_files


class LabelledFiles(NamedTuple):
    """The image files of a source, and their labels."""

    files: list[Path]
    labels: Tensor  # int64 class indices (N,), or float32 (N, classes) in 0-1
    splits: dict[str, Tensor]  # indices, int64; train, and those of val and test that there are
    left_out: Sequence[tuple[str, Sequence[Path]]] = ()  # reasons, and the files left out for each


class Division(NamedTuple):
    """How image files are divided into splits; see :func:`~convtrain.data.images.divide_labels`."""

    classes: list[str]
    val_fraction: float | Fold
    test_fraction: float
    split_seed: int
    limit: int | None  # of the images of each split, in the proportions of the classes
    divides: bool = True  # False makes one split of all images, which is each of the three


ReadFiles = Callable[..., Splits]
"""A function with the signature of :func:`read_files`."""


def read_files(
    found: LabelledFiles,
    rules: Rules,
    division: Division,
    *,
    decodes: Literal["once", "each_epoch"],
    memory_gib: float,
    cache_dir: str | None,
    cache_gib: float,
) -> Splits:
    """Divide the training files into the splits that are missing, and decode all files.

    Without test files, the files of a val split are the test images.

    Args:
        decodes: ``each_epoch`` decodes images of their own sizes each time they are read.
        memory_gib: limit of all splits together, above which batches are read from a file. Several
            processes of one machine always decode into such a file, once for all of them.
        cache_dir: folder of these files; None selects the user's cache folder.
        cache_gib: limit of these files together.

    Raises:
        CorruptDataError: an image cannot be decoded or is too large.
        ConfigError: the images fit neither into memory nor into the cache, or a class has too few
            images to be divided.
    """
    divided = divide_files(found, division)
    files = divided.files
    if rules.store_size is None:
        pixels = decode_files(files, rules, memory_gib, cache_dir, cache_gib)
        return as_splits(divided, pixels)
    source: Source = Decoded(files, rules)
    if decodes == "once":
        source = store_files(files, rules, memory_gib, cache_dir, cache_gib)
    return as_splits(divided, of_all(source, rules))


def divide_files(found: LabelledFiles, division: Division) -> LabelledFiles:
    """Return the files in the order of their splits, so that each split is a slice of them.

    With folds they are in the order in which they were found, so that all folds read one file of
    the cache. A ConfigError names the classes that have too few images.
    """
    files, labels, given, _ = found
    classes, val_fraction, test_fraction, split_seed, limit, divides = division
    if divides:
        train = given["train"]
        parts = divide_labels(
            labels[train],
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=split_seed,
            given=given.keys(),
            names=classes,
        )
        splits = given | {name: train[part] for name, part in parts.items()}
    else:
        splits = {"train": torch.arange(len(files))}
    if limit:
        for name, part in splits.items():
            splits[name] = part[sample_stratified(labels[part], limit, split_seed)]

    parts = {name: splits[name] for name in SPLITS if name in splits}
    order = torch.cat(list(parts.values()))
    if isinstance(val_fraction, Fold):
        order = order.sort().values
    place = torch.empty(len(files), dtype=torch.int64)
    place[order] = torch.arange(len(order))
    placed = {name: place[part] for name, part in parts.items()}
    ordered = [files[index] for index in order.tolist()]
    return LabelledFiles(ordered, labels[order], placed, found.left_out)


def as_splits(divided: LabelledFiles, pixels: Pixels) -> Splits:
    """Return the splits of divided files, whose pixels are given in their order."""
    images = Images(pixels, divided.labels).rearranged(list(divided.splits.values()))
    return named_splits(dict(zip(divided.splits, images, strict=True)))


def named_splits(images: Mapping[str, Images]) -> Splits:
    """Return the splits of a run, of which only ``train`` must be given."""
    train = images["train"]
    val = images.get("val", train)
    is_tested = "test" in images or "val" not in images
    return Splits(train, val, images.get("test", val), tested="test" if is_tested else "val")
