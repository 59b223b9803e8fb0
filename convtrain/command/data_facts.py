"""Fill in what follows from the files or the shape of the data, before the schema judges it."""

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.config.array_file import read_array_file
from convtrain.config.folders import read_layout
from convtrain.config.label_table import DELIMITERS, TableFormat, read_table
from convtrain.config.mistakes import Mistake
from convtrain.config.torchvision_datasets import PHOTOGRAPHS, ROWS
from convtrain.errors import MissingDataError
from convtrain.text import plain_as_omegaconf

MIDDLE = {"mean": 0.5, "std": 0.25}
"""Statistics of each channel of a dataset whose own are not known; noise has about these."""
MAX_CHANNELS = 65535
HAVE_CLASSES = ("image_folder", "csv", "arrays", "torchvision")
"""Datasets whose classes are found in their files, or in a table."""
UNKNOWN = [3, 64, 64]


def fill_in(composed: DictConfig) -> list[Mistake]:
    """Fill in the classes of the data, their number, and other values that are null.

    Values of a wrong type are left to the schema.
    """
    data = composed.get("data")
    if not isinstance(data, DictConfig):
        return []
    try:
        if (find := FINDS.get(str(data.get("kind", data.get("name"))))) is not None:
            find(data)
        counts = "num_classes" in data and data.num_classes is None
        if counts and OmegaConf.is_list(data.get("classes")):
            data.num_classes = len(data.classes)
    except OmegaConfBaseException:
        return []  # an interpolation that is reported with the others
    except MissingDataError as error:
        return [Mistake("", str(error))]
    return []


def _classes_of_folder(data: DictConfig) -> None:
    if data.get("classes") is None and isinstance(data.root, str):
        allows = data.get("allow_missing_classes") is True
        layout = read_layout(Path(data.root), allow_missing=allows)
        data.classes = plain_as_omegaconf(layout.classes)


def _classes_of_table(data: DictConfig) -> None:
    keys = [data.get(key) for key in TableFormat._fields]
    right = all(key is None or (isinstance(key, str) and key) for key in keys)
    if data.get("classes") is not None or data.get("file") is None or not right:
        return
    if data.get("delimiter") in (None, *DELIMITERS):
        table = read_table(TableFormat(*keys))
        if data.get("allow_missing_classes") is not True:
            table.refuse_missing_classes()
        data.classes = plain_as_omegaconf(table.classes)


def _facts_of_arrays(data: DictConfig) -> None:
    try:
        if not isinstance(file := data.get("file"), str):
            return
        found = read_array_file(file)
        if data.get("shape") is None:
            data.shape = found.shape
        if data.get("num_classes") is None and data.get("classes") is None:
            if found.absent is not None:
                raise MissingDataError(
                    f"{found.where}: no image has the label {found.absent}, of 0 to "
                    f"{found.classes - 1}; type data.num_classes={found.classes} to accept it"
                )
            data.num_classes = found.classes
    finally:
        if data.get("shape") is None:
            data.shape = UNKNOWN  # so that the file alone is reported
        _statistics(data)


def _statistics(data: DictConfig) -> None:
    channels = data.shape[0] if OmegaConf.is_list(data.get("shape")) else 1
    for key, value in MIDDLE.items():
        if data.get(key) is None and isinstance(channels, int):
            data[key] = [value] * min(channels, MAX_CHANNELS)


def _published(data: DictConfig) -> None:
    row = ROWS.get(str(data.get("name")))
    if data.get("shape") is None:
        data.shape = list(row.shape if row else PHOTOGRAPHS)
    if row and data.get("num_classes") is None and data.get("classes") is None:
        data.num_classes = row.class_count({str(key): value for key, value in data.items()})
    _statistics(data)


FINDS: dict[str, Callable[[DictConfig], None]] = {
    "image_folder": _classes_of_folder,
    "csv": _classes_of_table,
    "arrays": _facts_of_arrays,
    "custom": _statistics,
    "torchvision": _published,
    "huggingface": _statistics,
}
"""A dataset's kind, or else its name, to what finds its facts."""
