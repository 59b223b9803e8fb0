"""A folder of images with one subfolder for each class, decoded once."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from convtrain.config.data_sections import Fold, Interpolation
from convtrain.config.folders import read_layout
from convtrain.config.image_files import images_in, loose_images
from convtrain.data.decoding import Rules
from convtrain.data.images import Splits
from convtrain.data.labelled_files import Division, LabelledFiles, ReadFiles, read_files
from convtrain.errors import MissingDataError, few, one_line

log = logging.getLogger("convtrain")


def load(
    *,
    root: str,
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
    """Decode ``root``, which is either split, or has folders train, val and test.

    Args:
        shape, resize, max_pixels, background, value_range, interpolation, store_size, eval_crop:
            see :mod:`convtrain.data.decoding`.
        The others: see :func:`~convtrain.data.labelled_files.read_files`.
        read: takes the files that were found; the check reads them in another way.

    Raises:
        MissingDataError: a folder is missing or holds no images, or a link leads out of ``root``.
    """
    return read(
        _find(Path(root), classes, allow_missing_classes),
        Rules(
            shape, resize, max_pixels, background, value_range, interpolation, store_size, eval_crop
        ),
        Division(classes, val_fraction, test_fraction, split_seed, limit, divides),
        decodes=decode,
        memory_gib=memory_gib,
        cache_dir=cache_dir,
        cache_gib=cache_gib,
    )


def _find(root: Path, classes: list[str], allow_missing: bool) -> LabelledFiles:
    files, labels, splits = list[Path](), list[int](), dict[str, Tensor]()
    others, loose, hidden = list[Path](), list[Path](), list[Path]()
    layout = read_layout(root, classes, allow_missing=allow_missing)
    for split, folder in layout.splits.items():
        start, empty = len(files), []
        for label, name in enumerate(classes):
            images, no_images = images_in(folder / name, root, hidden)
            if not images:
                empty.append(name)
            files += images
            labels += [label] * len(images)
            others += no_images
        if start == len(files):
            raise MissingDataError(
                f"data.root={root}: {folder} holds no images; expected {folder}/{classes[0]}/*.jpg "
                f"and one such folder for each class"
            )
        if empty:
            rank_zero_only(log.warning)("%s has no images of %s", folder, few(empty))
        loose += loose_images(folder, hidden)
        splits[split] = torch.arange(start, len(files))
    left_out = (
        ("no images, or links to folders", others),
        ("in no class folder", loose),
        ("hidden, or of the operating system", sorted(hidden)),
    )
    for why, paths in left_out:
        if paths:
            named = one_line(few((str(path.relative_to(root)) for path in paths), most=3))
            what = "1 file that is" if len(paths) == 1 else f"{len(paths)} files that are"
            rank_zero_only(log.warning)("data.root=%s: left out %s %s: %s", root, what, why, named)
    return LabelledFiles(files, torch.tensor(labels), splits, left_out)
