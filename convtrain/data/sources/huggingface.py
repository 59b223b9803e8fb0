"""Datasets of the Hugging Face Hub, and folders that its package ``datasets`` reads.

Only data files are read: since version 4, ``datasets`` runs no code of a dataset. Pillow decodes
the images here, because ``datasets`` itself would fetch images that a file names by an address.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only

from convtrain.errors import (
    ConfigError,
    CorruptDataError,
    MissingDataError,
    TrainingError,
    did_you_mean,
    few,
    first_line,
)

log = logging.getLogger("convtrain")

SPLITS = {
    "train": ("train", "training"),
    "val": ("validation", "val", "valid", "dev"),
    "test": ("test",),
}
"""Names that a split may have; the first that exists counts."""
ONLY = ""  # name of the only split
UNLABELLED = -1


class Table(Protocol):
    """A split, as ``datasets.Dataset``."""

    @property
    def features(self) -> Mapping[str, object]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict[str, object]: ...
    def unique(self, column: str) -> list[object]: ...
    def select_columns(self, column_names: list[str]) -> "Table": ...
    def cast_column(self, column: str, feature: object) -> "Table": ...


class Columns:
    """The images of one column with the labels of another, as a map-style dataset.

    Attributes:
        classes: names of the classes, if the labels have names.
    """

    def __init__(self, table: Table, image: str, label: str, num_classes: int) -> None:
        self.table, self.image, self.label, self.num_classes = table, image, label, num_classes
        feature = table.features[label]
        self.has_several = _inner(feature) is not None
        names = getattr(_inner(feature) or feature, "names", None)
        self.classes = None if names is None else list(names)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Image.Image, object]:
        row = self.table[index]
        held, label = row[self.image], row[self.label]
        if not isinstance(held, dict):
            raise CorruptDataError("has no image")
        source = held["path"] if held["bytes"] is None else io.BytesIO(held["bytes"])
        image = Image.open(source)
        if not isinstance(label, list) or self.classes is None:
            return image, label
        for each in label:
            if each is None or not 0 <= each < self.num_classes:
                return image, each  # which is refused
        target = np.zeros(self.num_classes, dtype=np.float32)
        target[np.asarray(label, dtype=np.int64)] = 1
        return image, target


def datasets_of(
    *,
    name: str,
    config: str | None,
    image_column: str | None,
    label_column: str | None,
    download: bool,
    num_classes: int,
) -> Mapping[str, Columns] | Columns:
    """Return the splits train, val and test, or the only split, whatever its name is.

    Args:
        name: a folder, or a name on the Hub.
        config: of a dataset that has several.
        image_column, label_column: None takes the only column of images, and of class labels.
        download: fetch what is not in the cache of ``datasets``.

    Raises:
        MissingDataError: there is no such folder, and nothing of this name in the cache.
        ConfigError: the dataset has no such configuration, split or column.
        CorruptDataError: a file cannot be read.
        TrainingError: the download failed.
    """
    where, found = f"data.name={name}", dict[str, Columns]()
    for split, table in _named(_read(name, config, download), where).items():
        image = _column(table, where, "image_column", image_column, "images", _is_image)
        label = _column(table, where, "label_column", label_column, "class labels", _is_label)
        columns = Columns(_encoded(table, image, label), image, label, num_classes)
        if not columns.has_several and columns.table.unique(label) == [UNLABELLED]:
            warn(f"{where}: the split {split or 'of all images'} has no labels and is left out")
        else:
            found[split] = columns
    if not found:
        raise ConfigError(f"{where}: has no labels")
    return found.get(ONLY, found)


def _read(name: str, config: str | None, download: bool) -> Mapping[str, Table]:
    import datasets

    folder = Path(name).expanduser()
    try:
        with _quiet(offline=not download):
            if any((folder / file).is_file() for file in ("dataset_dict.json", "state.json")):
                read = datasets.load_from_disk(str(folder))
            else:
                place = str(folder) if folder.is_dir() else name
                read = datasets.load_dataset(place, config)
    except Exception as error:  # the readers of ``datasets`` raise anything
        reason = first_line(error)
        if isinstance(error, ValueError) and "config" in reason.lower():
            raise ConfigError(f"data.config={config or 'null'}: {reason}") from error
        if folder.exists():
            raise CorruptDataError(f"data.name={name}: cannot be read: {reason}") from error
        if download:
            raise TrainingError(
                f"data.name={name}: the download failed: {reason}; check the name and the network"
            ) from error
        raise MissingDataError(
            f"data.name={name}: there is no such folder, and nothing of this name in the cache of "
            f"datasets; type data.download=true to fetch it from the Hugging Face Hub"
        ) from error
    return read if isinstance(read, dict) else {ONLY: read}


@contextlib.contextmanager
def _quiet(*, offline: bool) -> Iterator[None]:
    """Let errors alone speak; without a download, show no progress and use the cache alone."""
    import datasets

    before, silent = datasets.config.HF_HUB_OFFLINE, datasets.utils.are_progress_bars_disabled()
    verbosity = datasets.logging.get_verbosity()
    try:
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)
        if offline:
            datasets.config.HF_HUB_OFFLINE = True
            datasets.disable_progress_bars()
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
        datasets.logging.set_verbosity(verbosity)
        if not silent:
            datasets.enable_progress_bars()


def _named(read: Mapping[str, Table], where: str) -> dict[str, Table]:
    """Return the splits under our names; the only one is ``ONLY``."""
    if len(read) == 1:
        return {ONLY: next(iter(read.values()))}
    theirs = {ours: [name for name in names if name in read][:1] for ours, names in SPLITS.items()}
    if not theirs["train"]:
        raise ConfigError(f"{where}: has the splits {few(read)}, and no train")
    found = {ours: read[names[0]] for ours, names in theirs.items() if names}
    if others := read.keys() - set().union(*theirs.values()):
        warn(f"{where}: left out {few(sorted(others))}: no splits train, validation or test")
    return found


@rank_zero_only
def warn(text: str) -> None:
    log.warning("%s", text)


def _inner(feature: object) -> object:
    """Return what a list holds, or None."""
    return feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)


def _is_image(feature: object) -> bool:
    encoded = isinstance(feature, dict) and feature.keys() == {"bytes", "path"}
    return encoded or type(feature).__name__ == "Image"


def _is_label(feature: object) -> bool:
    return "ClassLabel" in (type(feature).__name__, type(_inner(feature)).__name__)


def _column(
    table: Table,
    where: str,
    key: str,
    typed: str | None,
    what: str,
    fits: Callable[[object], bool],
) -> str:
    """Return the column that is typed, or the only one that fits."""
    features = table.features
    if typed is not None and typed not in features:
        near = did_you_mean(typed, features) or f"; there are {few(features)}"
        raise ConfigError(f"data.{key}={typed}: {where} has no such column{near}")
    found = [typed] if typed else [name for name, feature in features.items() if fits(feature)]
    if len(found) != 1:
        those = f"{few(found)} hold" if found else f"none of the columns {few(features)} holds"
        raise ConfigError(f"{where}: {those} {what}; type data.{key}=COLUMN")
    (column,) = found
    feature = features[column]
    inner = _inner(feature) or feature
    is_one = fits(feature) if what == "images" else type(inner).__name__ in ("ClassLabel", "Value")
    if not is_one:
        others = [name for name, each in features.items() if fits(each)]
        instead = f"; type data.{key}={others[0]}" if others else ""
        raise ConfigError(f"data.{key}={column}: holds {feature}, and no {what}{instead}")
    if getattr(inner, "dtype", "") in ("string", "large_string"):
        raise ConfigError(
            f"data.{key}={column}: holds text; write the files with class labels, as "
            f"dataset.class_encode_column('{column}') makes them"
        )
    return column


def _encoded(table: Table, image: str, label: str) -> Table:
    """Return the two columns, whose images are not decoded."""
    from datasets import Image as Encoded

    return table.select_columns([image, label]).cast_column(image, Encoded(decode=False))
