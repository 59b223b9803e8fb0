"""Images that a file lists, with a column of paths and one of labels, decoded once."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from convtrain.config.data_sections import Fold, Interpolation
from convtrain.config.label_table import Table, TableFormat, read_table
from convtrain.data.decoding import Rules
from convtrain.data.images import Splits
from convtrain.data.labelled_files import Division, LabelledFiles, ReadFiles, read_files
from convtrain.errors import MissingDataError, few

log = logging.getLogger("convtrain")


def load(
    *,
    file: str,
    root: str | None,
    path_column: str | None,
    label_column: str | None,
    split_column: str | None,
    delimiter: str | None,
    label_separator: str | None,
    classes: list[str],
    shape: list[int],
    resize: Literal["crop", "stretch"],
    val_fraction: float | Fold,
    test_fraction: float,
    split_seed: int,
    memory_gib: float,
    max_pixels: int,
    interpolation: Interpolation = "bilinear",
    store_size: int | None = None,
    eval_crop: float = 0.875,
    decode: Literal["once", "each_epoch"] = "once",
    background: int | Sequence[int] = 255,
    value_range: Sequence[float] | None = None,
    limit: int | None = None,
    cache_dir: str | None = None,
    cache_gib: float = 50.0,
    allow_missing_classes: bool = False,
    divides: bool = True,
    read: ReadFiles = read_files,
) -> Splits:
    """Decode the images of a file of labels, in its order.

    Args:
        file, root, path_column, label_column, split_column, delimiter, label_separator: see
            :mod:`convtrain.config.label_table`.
        classes: the labels that are used. Images of another label are left out, unless they may
            have any number of labels.
        shape, resize, max_pixels, background, value_range, interpolation, store_size, eval_crop:
            see :mod:`convtrain.data.decoding`.
        The others: see :func:`~convtrain.data.labelled_files.read_files`.
        read: takes the files that were found; the check reads them in another way.

    Raises:
        MissingDataError: the file is missing or wrong, or an image that it lists is missing.
    """
    keys = (file, root, path_column, label_column, split_column, delimiter, label_separator)
    table = read_table(TableFormat(*keys))
    table.refuse_missing_files()
    return read(
        _chosen(table, classes, several=label_separator is not None),
        Rules(
            shape, resize, max_pixels, background, value_range, interpolation, store_size, eval_crop
        ),
        Division(classes, val_fraction, test_fraction, split_seed, limit, divides),
        decodes=decode,
        memory_gib=memory_gib,
        cache_dir=cache_dir,
        cache_gib=cache_gib,
    )


def _chosen(table: Table, classes: Sequence[str], *, several: bool) -> LabelledFiles:
    """Return the images of these classes, by split, and warn of what is odd."""
    warn = rank_zero_only(log.warning)
    index = {name: label for label, name in enumerate(classes)}
    files, labels, splits = list[Path](), list[list[int]](), dict[str, Tensor]()
    for split, rows in table.splits.items():
        start, present = len(files), set[int]()
        for row in rows:
            these = [index[name] for name in table.labels[row] if name in index]
            if these or several:
                files.append(Path(table.files[row]))
                labels.append(these)
                present.update(these)
        if start == len(files):
            raise MissingDataError(f"{table.where}: {split} has no images of {few(classes)}")
        if len(present) < len(classes):
            lacking = [name for name in classes if index[name] not in present]
            warn("%s: %s has no images of %s", table.where, split, few(lacking))
        splits[split] = torch.arange(start, len(files))
    if table.repeated:
        text = "%s: left out %d rows that list an image again: %s"
        warn(text, table.where, len(table.repeated), few(table.repeated, most=3))
    if not several and (joined := [name for name in classes if "|" in name]):
        text = "%s: %s counts as one class; for several labels an image, type %s"
        warn(text, table.where, joined[0], "'data.label_separator=\"|\"' loss=bce")
    left_out = [("listed again", [Path(file) for file in table.repeated])]
    if not several:
        return LabelledFiles(files, torch.tensor(labels).squeeze(1), splits, left_out)
    targets = torch.zeros(len(files), len(classes))
    for target, these in zip(targets, labels, strict=True):
        target[these] = 1
    return LabelledFiles(files, targets, splits, left_out)
