"""The layout of an image folder: which folders are its splits, and which its classes.

The check, which runs without torch, and the loader both read a folder through these functions.
docs/data.md states the rules.
"""

import shlex
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from convtrain.config.image_files import (
    Content,
    folders_in,
    holds_images,
    look_into,
    refuse_outside,
)
from convtrain.errors import MissingDataError, few
from convtrain.text import as_hydra_value

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
MOST_TYPED = 20  # names in an override that is advised


class Layout(NamedTuple):
    """Which folders hold what.

    Attributes:
        classes: their names, in the order of their indices.
        splits: of ``train``, ``val`` and ``test``, those that have a folder. ``train`` always has
            one; it is the whole folder where that is to be split.
        folders: the names of all folders beside those of the classes, and these.
    """

    classes: list[str]
    splits: dict[str, Path]
    folders: list[str]


def read_layout(root: Path, classes: Sequence[str] | None = None) -> Layout:
    """Read a layout from the names of folders, and from whether they hold images.

    Args:
        root: ``data.root``.
        classes: ``data.classes``, which decides what would otherwise be refused: whether a folder
            called ``train`` is a class, and that a class may be without images in some split. Its
            names need not be there.

    Raises:
        MissingDataError: a folder is missing, cannot be read or cannot be meant; a class has no
            images or stands in some splits alone; a link leads out of ``root``. One line.
    """
    try:
        return _read_layout(root, classes)
    except (OSError, ValueError) as error:
        if isinstance(error, MissingDataError):
            raise
        where = getattr(error, "filename", None)
        inside = f"{where}: " if where and str(where) != str(root) else ""
        reason = getattr(error, "strerror", None) or error
        raise MissingDataError(f"data.root={str(root)[:200]}: {inside}{reason}") from error


def class_names(root: Path) -> list[str]:
    """Return the sorted names of the class folders; see :func:`read_layout`."""
    return read_layout(root).classes


def _read_layout(root: Path, classes: Sequence[str] | None) -> Layout:
    if not root.is_dir():
        raise MissingDataError(
            f"data.root={root}: no such folder; expected {root}/train/CLASS/*.jpg and "
            f"{root}/test/CLASS/*.jpg, or {root}/CLASS/*.jpg; set data.root=FOLDER"
        )
    splits = _splits(root, classes)
    train = _ClassFolders(splits["train"], root)
    if classes is not None:
        train.refuse_empty(classes)
        return Layout(list(classes), splits, list(train))
    if not train:
        raise MissingDataError(
            f"data.root={root}: {train.folder} holds no class folders; "
            f"expected {train.folder}/CLASS/*.jpg"
        )
    train.refuse_empty(train)
    train.refuse_what_cannot_be_meant()
    for split in ("val", "test"):
        if split in splits:
            train.refuse_difference(_ClassFolders(splits[split], root))
    return Layout(list(train), splits, list(train))


def _splits(root: Path, classes: Sequence[str] | None) -> dict[str, Path]:
    """Return the folders of the splits; ``root`` itself for ``train`` where it is to be split."""
    folders = folders_in(root)
    there = {split: [n for n in names if n in folders] for split, names in SPLITS.items()}
    if several := next((names for names in there.values() if len(names) > 1), None):
        raise MissingDataError(
            f"data.root={root}: {' and '.join(several)} are both there; keep one for validation"
        )
    splits = {split: root / names[0] for split, names in there.items() if names}
    beside = [name for name in folders if root / name not in splits.values()]
    if "train" not in splits:
        if classes is not None:  # folders that hold none of the classes are left out
            others = [p for p in splits.values() if p.name not in classes]
            splits = {p.name: p for p in others if set(classes) & set(folders_in(p))}
        for path in splits.values():
            as_class = f", or set {_as_classes(folders)} if {path.name} is a class" * bool(beside)
            raise MissingDataError(
                f"data.root={root}: there is {path.name} without train; "
                f"move the training images into {root}/train/CLASS{as_class}"
            )
        return {"train": root}
    if classes is not None:
        inside = set(folders_in(splits["train"]))
        is_class = set(classes) <= set(folders) and not set(classes) <= inside
        return {"train": root} if is_class else splits
    for name in beside:
        if holds_images(root / name):
            with_train = [n for n in folders if n == "train" or root / n not in splits.values()]
            raise MissingDataError(
                f"data.root={root}: there are images in {name}, beside train; set "
                f"{_as_classes(with_train)} if train is a class, "
                f"or {_as_classes(folders_in(splits['train']))} if it holds the classes"
            )
    return splits


class _ClassFolders(dict[str, Path]):
    """The folders of a split, by name, and what is wrong with them."""

    def __init__(self, folder: Path, root: Path) -> None:
        super().__init__({name: folder / name for name in folders_in(folder)})
        self.folder, self.root = folder, root
        for path in self.values():
            refuse_outside(path, root)

    @cached_property
    def contents(self) -> dict[str, Content]:
        return {name: look_into(path) for name, path in self.items()}

    def refuse_empty(self, names: Iterable[str]) -> None:
        """Raise MissingDataError for classes without images, unless their folder is missing."""
        empty = [name for name in names if name in self and not self.contents[name].any]
        if empty:
            others = [name for name in self if self.contents[name].any]
            told = few(f"{name} ({self.contents[name].why_none})" for name in empty)
            leave_out = f", or leave it out with {_as_classes(others)}" * bool(others)
            raise MissingDataError(
                f"data.root={self.root}: no images in {self.folder} for class {told}; "
                f"add some{leave_out}"
            )

    def refuse_what_cannot_be_meant(self) -> None:
        """Raise MissingDataError for trees in which the classes are a level further down."""
        names, contents = list(self), list(self.contents.values())
        if any(content.own for content in contents):
            return
        shared = sorted(set.intersection(*(content.folders for content in contents)))
        if len(names) == 1:
            there = self.folder / names[0]
            at_root = self.folder == self.root
            what = f"set data.root={there}" if at_root else f"move these up into {self.folder}"
            problem = f"{self.folder} holds one folder, {names[0]}, which holds folders; {what}"
        elif shared:
            problem = (
                f"{few(names)} each hold the folders {few(shared)}; if these are the classes, call "
                f"the splits train, val and test"
            )
        else:
            return
        raise MissingDataError(
            f"data.root={self.root}: {problem}, or set {_as_classes(names)} if that is meant"
        )

    def refuse_difference(self, other: "_ClassFolders") -> None:
        """Raise MissingDataError where another split has other classes."""
        here = set(self)
        there = {name for name in other if other.contents[name].any}
        if more := sorted(there - here):
            raise MissingDataError(
                f"data.root={self.root}: {other.folder} has classes that {self.folder} has not: "
                f"{few(more)}; add images, or leave them out with {_as_classes(self)}"
            )
        if missing := sorted(here - there):
            raise MissingDataError(
                f"data.root={self.root}: {other.folder} has no images of {few(missing)}; add some, "
                f"leave them out with {_as_classes(sorted(there))}, or accept it with "
                f"{_as_classes(self)}"
            )


def _as_classes(names: Iterable[str]) -> str:
    """Return the override of ``data.classes`` to type in a shell; many names are cut short."""
    names = list(names)
    more = [] if len(names) <= MOST_TYPED else ["..."]
    typed = [as_hydra_value(name) for name in names[:MOST_TYPED]]
    return shlex.quote(f"data.classes=[{','.join(typed + more)}]")
