"""The splits and the classes of an image folder, by the rules of docs/data.md.

The check, which runs without torch, and the loader both call :func:`read_layout`.
"""

import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from convtrain.config.image_files import (
    Content,
    folders_in,
    holds_images,
    look_into,
    refuse_bad_link,
)
from convtrain.errors import MissingDataError, few
from convtrain.text import as_hydra_value

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
ACCEPT = "accept it with data.allow_missing_classes=true"
MAX_CLASSES_TYPED = 20  # in an override that is advised


class Layout(NamedTuple):
    """The folders of an image folder."""

    classes: list[str]  # in the order of their indices
    splits: dict[str, Path]  # train is data.root itself if that is to be split
    folders: list[str]  # names that a class may have: of all folders in splits["train"]


def read_layout(
    root: Path, classes: Sequence[str] | None = None, *, allow_missing: bool = False
) -> Layout:
    """Read the layout of ``data.root`` from the names of its folders and from which have images.

    ``classes`` is ``data.classes``. It decides cases that are errors without it: a folder called
    ``train`` may be a class, and a class may lack validation or test images.

    ``allow_missing`` is ``data.allow_missing_classes``: a class needs images in one split only.

    Raises:
        MissingDataError: a folder is missing, unreadable or ambiguous; a class has no images or is
            missing from a split; a link leads out of ``root``.
    """
    try:
        if not root.is_dir():
            raise _error(
                root,
                f"no such folder; expected {root}/train/CLASS/*.jpg and {root}/test/CLASS/*.jpg, "
                f"or {root}/CLASS/*.jpg; set data.root=FOLDER",
            )
        splits = _splits(root, classes)
        train = _ClassFolders(splits["train"], root)
        if classes is None and not train:
            empty = train.folder
            raise _error(root, f"{empty} holds no class folders; expected {empty}/CLASS/*.jpg")
        others = [splits[name] for name in ("val", "test") if name in splits]
        elsewhere = set[str]()
        for folder in others if allow_missing else ():
            elsewhere |= _ClassFolders(folder, root).with_images
        known = sorted({*train, *elsewhere})
        train.refuse_empty(known if classes is None else classes, elsewhere)
        if classes is not None:
            return Layout(list(classes), splits, known)
        train.refuse_deeper_classes()
        for folder in () if allow_missing else others:
            train.refuse_difference(_ClassFolders(folder, root))
        return Layout(known, splits, known)
    except MissingDataError:
        raise
    except (OSError, ValueError) as error:
        where = getattr(error, "filename", None)
        inside = f"{where}: " if where and str(where) != str(root) else ""
        reason = getattr(error, "strerror", None) or error
        raise _error(str(root)[:200], f"{inside}{reason}") from error


def _splits(root: Path, classes: Sequence[str] | None) -> dict[str, Path]:
    folders = folders_in(root)
    found = {split: [n for n in names if n in folders] for split, names in SPLITS.items()}
    if several := next((names for names in found.values() if len(names) > 1), None):
        raise _error(root, f"{' and '.join(several)} are both there; keep one for validation")
    if classes is None and any(found.values()):
        _refuse_other_spelling(root, folders)
    splits = {split: root / names[0] for split, names in found.items() if names}
    beside = [name for name in folders if root / name not in splits.values()]
    if "train" not in splits:
        if classes is not None:  # folders that hold none of the classes are left out
            others = [p for p in splits.values() if p.name not in classes]
            splits = {p.name: p for p in others if set(classes) & set(folders_in(p))}
        for path in splits.values():
            as_class = f", or set {as_classes(folders)} if {path.name} is a class" * bool(beside)
            raise _error(
                root,
                f"there is {path.name} without train; move the training images into "
                f"{root}/train/CLASS{as_class}",
            )
        return {"train": root}
    in_train = folders_in(splits["train"]) if classes is not None or beside else []
    if classes is not None:
        train_is_class = set(classes) <= set(folders) and not set(classes) <= set(in_train)
        return {"train": root} if train_is_class else splits
    for name in beside:
        if holds_images(root / name):
            with_train = [n for n in folders if n == "train" or n in beside]
            raise _error(
                root,
                f"there are images in {name}, beside train; set {as_classes(with_train)} if train "
                f"is a class, or {as_classes(in_train)} if it holds the classes",
            )
    return splits


def _refuse_other_spelling(root: Path, folders: Sequence[str]) -> None:
    """Refuse images in a folder such as Test beside train, which is neither split nor class."""
    for name in folders:
        is_split = (lower := name.lower()) != name and lower in set().union(*SPLITS.values())
        if is_split and holds_images(root / name):
            raise _error(
                root,
                f"there is {name}, and the splits are train, val and test; rename it to {lower}, "
                f"or set {as_classes(folders)} if {name} is a class",
            )


class _ClassFolders(dict[str, Content]):
    """The class folders of a split by name; its checks raise MissingDataError."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        paths = [folder / name for name in folders_in(folder)]
        for path in paths:
            refuse_bad_link(path, root)
        super().__init__({path.name: look_into(path) for path in paths})

    @property
    def with_images(self) -> set[str]:
        return {name for name in self if self[name].any}

    def refuse_empty(self, names: Iterable[str], but: Collection[str]) -> None:
        """Refuse classes whose folder has no images; a missing folder is no mistake here."""
        empty = [n for n in names if n in self and not self[n].any and n not in but]
        if empty:
            others = [name for name in self if self[name].any]
            named = few(f"{name} ({self[name].why_none})" for name in empty)
            leave_out = f", or leave it out with {as_classes(others)}" * bool(others)
            raise _error(
                self.root, f"no images in {self.folder} for class {named}; add some{leave_out}"
            )

    def refuse_deeper_classes(self) -> None:
        """Refuse a tree whose classes are one level deeper."""
        names = list(self)
        if any(content.own for content in self.values()):
            return
        shared = sorted(set.intersection(*(content.folders for content in self.values())))
        if len(names) == 1:
            inner = self.folder / names[0]
            at_root = self.folder == self.root
            what = f"set data.root={inner}" if at_root else f"move these up into {self.folder}"
            problem = f"{self.folder} holds one folder, {names[0]}, which holds folders; {what}"
        elif shared:
            problem = (
                f"{few(names)} each hold the folders {few(shared)}; if these are the classes, call "
                f"the splits train, val and test"
            )
        else:
            return
        raise _error(self.root, f"{problem}, or set {as_classes(names)} if that is meant")

    def refuse_difference(self, other: "_ClassFolders") -> None:
        here, there = set(self), other.with_images
        if more := sorted(there - here):
            raise _error(
                self.root,
                f"{other.folder} has classes that {self.folder} has not: {few(more)}; add images, "
                f"leave them out with {as_classes(self)}, or {ACCEPT}",
            )
        if missing := sorted(here - there):
            raise _error(
                self.root,
                f"{other.folder} has no images of {few(missing)}; add some, leave them out with "
                f"{as_classes(sorted(there))}, or {ACCEPT}",
            )


def _error(root: Path | str, text: str) -> MissingDataError:
    return MissingDataError(f"data.root={root}: {text}")


def as_classes(names: Iterable[str]) -> str:
    """Return the override of ``data.classes`` with these names, as it is typed in a shell."""
    typed = [as_hydra_value(name) for name in names]
    if len(typed) > MAX_CLASSES_TYPED:
        typed = [*typed[:MAX_CLASSES_TYPED], "..."]
    return shlex.quote(f"data.classes=[{','.join(typed)}]")
