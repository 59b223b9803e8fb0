"""The classification datasets of ``torchvision.datasets``, each made by its own constructor."""

import contextlib
import io
import operator
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from convtrain.config.signatures import takes
from convtrain.config.torchvision_datasets import ROWS, Row, constructor
from convtrain.errors import ConvtrainError, MissingDataError, TrainingError, few, first_line

NAMES = ("classes", "categories", "attr_names", "bin_classes", "all_categories", "_characters")
"""Attributes of torchvision's datasets that hold the names of the classes."""


def datasets_of(
    *, name: str, options: Mapping[str, object], root: str, download: bool, num_classes: int
) -> object:
    """Return the dataset, or a mapping of its splits, with the names of the classes in ``classes``.

    Args:
        name: in :data:`~convtrain.config.torchvision_datasets.ROWS`.
        options: further arguments of the constructor.
        download: fetch files that are missing.
        num_classes: passed to a dataset that takes it.

    Raises:
        MissingDataError: files are missing, and ``download`` is off or cannot fetch them.
        TrainingError: the download failed.
    """
    row, made = ROWS[name], constructor(name)
    shared = {"root": root, "num_classes": num_classes}
    given = {key: value for key, value in shared.items() if takes(made, key)}
    if first := row.first_label(options):
        given["target_transform"] = partial(operator.add, -first)
    splits = {}
    for split, arguments in (row.splits or {"": {}}).items():
        dataset = _open(name, {**options, **given, **arguments}, Path(root), download)
        _name_classes(dataset, row, options, f"data.name={name} data.root={root}")
        splits[split] = dataset
    return splits if row.splits else splits[""]


def _open(name: str, arguments: Mapping[str, object], root: Path, download: bool) -> object:
    """Make a dataset from the files that are there, or else download them first."""
    row, made, here = ROWS[name], constructor(name), root.absolute()
    fetches = takes(made, "download") and not row.by_hand
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return made(**arguments, **({"download": False} if fetches else {}))
    except Exception as error:  # each class of torchvision has its own
        if not (fetches and download):
            reason = first_line(error).rstrip(".")
            why = "" if "download=True" in reason else f" ({reason})"
            fetch = "type data.download=true" if fetches else f"put them into {here / row.by_hand}"
            raise MissingDataError(
                f"data.name={name}: {here} lacks files, or they are damaged{why}; {fetch}, or set "
                f"data.root=FOLDER"
            ) from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return made(**arguments, download=True)
    except ConvtrainError:  # an archive that would write elsewhere
        raise
    except Exception as error:
        raise TrainingError(
            f"data.name={name}: the download into {here} failed: {first_line(error)}; check the "
            f"network, or put the files there by hand"
        ) from error


def _name_classes(dataset: object, row: Row, options: Mapping[str, object], where: str) -> None:
    """Let ``classes`` hold a name for each class, if the dataset has names."""
    count, first = row.class_count(options), row.first_label(options)
    lists = [names for key in NAMES if (names := _names(dataset, key))]
    if count is None or not lists:
        return
    right = next((names[first:] for names in lists if len(names) == first + count), None)
    if right is None:
        raise MissingDataError(
            f"{where}: {len(lists[0])} classes are there, {few(lists[0])}, and the dataset has "
            f"{count}; restore its files, or type data=image_folder for a folder of your own"
        )
    setattr(dataset, NAMES[0], right)


def _names(dataset: object, key: str) -> list[str]:
    """Return names; those of ImageNet, which are not unique, come with their WordNet id."""
    names = [name for name in getattr(dataset, key, ()) if name]
    if names and isinstance(names[0], tuple):
        wnids: list[str] = getattr(dataset, "wnids", [])
        return [f"{words[0]} {wnid}" for words, wnid in zip(names, wnids, strict=True)]
    return names
