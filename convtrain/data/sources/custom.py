"""Datasets of a user's choice: map-style datasets, read once and converted to 8-bit images."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from torch.utils.data import Dataset

from convtrain.config.data_sections import GIB, Fold, Interpolation
from convtrain.config.folders import SPLITS
from convtrain.data.archives import contained_extraction
from convtrain.data.blocks import gather
from convtrain.data.cache import cache_folder, default_folder, spilled
from convtrain.data.decoding import Resize
from convtrain.data.images import Images, Pixels, Splits, divide_labels
from convtrain.data.items import ItemRules, Target
from convtrain.data.randomness import derive_seed
from convtrain.data.reading import (
    MapStyle,
    as_labels,
    check_map_style,
    own_randomness,
    read_blocks,
    warn_if_random,
)
from convtrain.data.sized_pixels import of_all
from convtrain.data.stored_files import store_items
from convtrain.errors import ConfigError, MissingDataError, few
from convtrain.process.lock import locked
from convtrain.process.ranks import rank_info

Make = Callable[[], object]


def load(
    makers: Mapping[str, Make],
    *,
    num_classes: int,
    shape: Sequence[int],
    resize: Resize,
    background: int | Sequence[int],
    value_range: Sequence[float] | None,
    classes: Sequence[str] | None,
    val_fraction: float | Fold,
    test_fraction: float,
    split_seed: int,
    memory_gib: float,
    read_workers: int,
    cache_dir: str | None,
    cache_gib: float,
    interpolation: Interpolation = "bilinear",
    store_size: int | None = None,
    eval_crop: float = 0.875,
) -> Splits:
    """Make datasets and read every item once.

    Splits that are missing are split off the training images, as of an image folder: without test
    images the validation images are tested, unless they are missing as well.

    Args:
        makers: the override that names a dataset, to the function that makes it. The key of one
            that is a split starts with ``data.SPLIT.``; the only one of another key makes one
            dataset, or a tuple or mapping of training, validation and test datasets.
        classes: the names that the configuration has; None takes those of the dataset.
        split_seed: of the splits, and of random numbers in the datasets.
        memory_gib: limit of all splits together, above which batches are read from a file.
        read_workers: processes that read items; 0 reads in this one. The bits are the same.
        cache_dir: folder of that file; None selects the user's cache folder.
        cache_gib: limit of that folder.

    Raises:
        ConfigError: what was made is no map-style dataset, or contradicts the configuration.
        CorruptDataError: an item cannot be used; the message has its index.
    """
    rules = ItemRules(
        shape, resize, num_classes, background, value_range, interpolation, store_size, eval_crop
    )
    with own_randomness(split_seed), _one_process_at_a_time(), contained_extraction():
        made = dict(_splits(makers))
    found = {name: check_map_style(dataset, where) for name, (where, dataset) in made.items()}
    told = [_class_names(found[name], made[name][0], num_classes) for name in found]
    size = sum(map(len, found.values())) * math.prod(shape)
    where_of = {name: where for name, (where, _) in made.items()}
    warn_if_random(found["train"], rules, where_of["train"])

    def read(name: str) -> Images:
        targets: list[Target] = []
        dataset, where = found[name], where_of[name]
        # The same index of another split draws other numbers.
        seed = derive_seed(split_seed, list(SPLITS).index(name))
        blocks = read_blocks(dataset, rules, targets, where=where, seed=seed, workers=read_workers)
        whole = (len(dataset), *shape)
        pixels: Pixels
        if store_size is not None:
            left = memory_gib * GIB * len(dataset) / sum(map(len, found.values()))
            own = cast("Iterator[list[np.ndarray]]", blocks)
            stored = store_items(
                own, rules, count=len(dataset), memory_bytes=left,
                cache_dir=cache_dir, cache_gib=cache_gib,
            )  # fmt: skip
            pixels = of_all(stored, rules)
        elif size <= memory_gib * GIB:
            pixels = gather(blocks, whole)
        else:
            pixels = spilled(blocks, whole, folder=cache_folder(cache_dir), max_gib=cache_gib)
        return Images(pixels, as_labels(targets, where))

    with own_randomness(split_seed):
        splits = {name: read(name) for name in found}
    _same_kind({where_of[name]: images for name, images in splits.items()})
    splits |= _split_off(splits, val_fraction, test_fraction, split_seed, classes)
    names = None if classes else next((names for names in told if names), None)
    if "test" in splits:
        return Splits(splits["train"], splits["val"], splits["test"], classes=names)
    return Splits(splits["train"], splits["val"], splits["val"], tested="val", classes=names)


def _splits(makers: Mapping[str, Make]) -> Iterator[tuple[str, tuple[str, object]]]:
    for where, make in makers.items():
        split = where.split(".")[1]
        try:
            made = make()
        except ConfigError as error:
            if isinstance(error, MissingDataError) or "download=True" not in str(error):
                raise
            raise MissingDataError(
                f"{error}; type data.download=true, or data.root=FOLDER"
            ) from error
        if split in SPLITS:
            yield split, (where, made)
        elif isinstance(made, tuple) and not hasattr(made, "_fields") and len(made) <= len(SPLITS):
            yield from _returned(dict(zip(SPLITS, made, strict=False)), where)
        elif isinstance(made, Mapping):
            yield from _returned(made, where)
        elif isinstance(made, Sequence) and len(made) and isinstance(made[0], Dataset):
            raise ConfigError(
                f"{where}: returned a {type(made).__name__} of {len(made)} datasets; return a "
                f"tuple (train, val, test), of which the last ones may be absent"
            )
        else:
            yield "train", (where, made)


def _returned(made: Mapping[str, object], where: str) -> Iterator[tuple[str, tuple[str, object]]]:
    if unknown := [str(name) for name in made if name not in SPLITS]:
        raise ConfigError(f"{where}: returned {few(unknown)}; return train, val and test")
    given = {name: dataset for name, dataset in made.items() if dataset is not None}
    if "train" not in given:
        raise ConfigError(f"{where}: returned no training dataset; return train, val and test")
    for name, dataset in given.items():
        yield name, (f"{where} ({name})", dataset)


@contextlib.contextmanager
def _one_process_at_a_time() -> Iterator[None]:
    """Let the processes of a machine make datasets in turn, so that one of them downloads."""
    if rank_info().local_world_size == 1:
        yield
    else:
        with locked(default_folder() / "datasets", waits=True):
            yield


def _class_names(dataset: MapStyle, where: str, num_classes: int) -> list[str] | None:
    """Return the dataset's ``classes``; ConfigError if there are others than configured."""
    classes = getattr(dataset, "classes", None)
    if not isinstance(classes, list | tuple) or not all(isinstance(c, str) for c in classes):
        return None
    if len(classes) != num_classes:
        raise ConfigError(
            f"data.num_classes={num_classes}: {where} has {len(classes)} classes, "
            f"{few(classes)}; set data.num_classes={len(classes)}"
        )
    return list(classes)


def _same_kind(splits: Mapping[str, Images]) -> None:
    shapes = {where: tuple(images.labels.shape[1:]) for where, images in splits.items()}
    if len(set(shapes.values())) > 1:
        kinds = ", ".join(
            f"{where} has {'vectors' if shape else 'classes'}" for where, shape in shapes.items()
        )
        raise ConfigError(f"{kinds}, as targets; give the same kind in every split")


def _split_off(
    splits: Mapping[str, Images],
    val_fraction: float | Fold,
    test_fraction: float,
    seed: int,
    classes: Sequence[str] | None,
) -> dict[str, Images]:
    parts = divide_labels(
        splits["train"].labels,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        given=splits.keys(),
        names=classes,
    )
    if len(parts) == 1:
        return {}
    return dict(zip(parts, splits["train"].rearranged(list(parts.values())), strict=True))
