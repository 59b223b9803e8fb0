"""The files of an image folder: which ones are images, and which names are ignored.

docs/data.md states the rules.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from convtrain.errors import MissingDataError, few, one_line

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi"),
    *(".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".avif", ".jp2"),
    *(".tif", ".tiff", ".pbm", ".pgm", ".pnm", ".ppm"),
)
SYSTEM_NAMES = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"),
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
    *("$recycle.bin", "system volume information", "lost+found"),
}
"""Names, in lower case, that operating systems and network drives put beside images."""


def images_in(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Return the images below a folder, sorted, and the other files there.

    A missing folder has none. Folders that are links are not entered.

    Raises:
        MissingDataError: a folder cannot be read, or a link leads nowhere or out of ``root``.
    """
    images, others = list[Path](), list[Path]()
    try:
        for entry in _files(folder) if folder.is_dir() else ():
            path, is_image = Path(entry.path), _is_image(entry)
            if is_image and entry.is_symlink():
                refuse_bad_link(path, root)
            (images if is_image else others).append(path)
    except OSError as error:
        reason = error.strerror or error
        raise MissingDataError(f"data.root={root}: {error.filename}: {reason}") from error
    return sorted(images, key=lambda path: path.parts), sorted(others)


def loose_images(folder: Path) -> list[Path]:
    """Return the images in a folder itself, sorted."""
    return sorted(Path(e.path) for e in _visible(folder) if not e.is_dir() and _is_image(e))


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of the visible folders in a folder, and of links to folders.

    Raises:
        MissingDataError: a link leads nowhere, which would lose a class, or a name has characters
            that cannot be printed.
        OSError: the folder cannot be read.
    """
    names = []
    for entry in _visible(folder):
        path = Path(entry.path)
        if entry.is_symlink():
            refuse_bad_link(path)
        if entry.is_dir():
            if not path.name.isprintable():
                raise MissingDataError(
                    f"{one_line(str(path))}: is no name in UTF-8 that can be printed; rename it"
                )
            names.append(entry.name)
    return sorted(names)


def refuse_bad_link(path: Path, root: Path | None = None) -> None:
    """Raise MissingDataError for a link that leads nowhere, or out of a given ``root``."""
    if not path.exists():  # a loop of links included
        raise MissingDataError(f"{path}: a link that leads nowhere; remove it")
    if root is not None and not (target := path.resolve()).is_relative_to(root.resolve()):
        raise MissingDataError(
            f"{path}: a link to {target}, outside of data.root={root}; put the files themselves "
            f"there"
        )


class Content(NamedTuple):
    """What a class folder contains.

    Attributes:
        own: whether it contains images itself.
        any: whether it or a folder below contains images.
        folders: the names of its folders, up to its first image.
        why_none: why there are no images.
    """

    own: bool
    any: bool
    folders: set[str]
    why_none: str


def look_into(folder: Path) -> Content:
    """Look into a class folder, up to its first image."""
    folders, others = set[str](), set[str]()
    try:
        for entry in _visible(folder):
            if entry.is_dir(follow_symlinks=False):
                folders.add(entry.name)
            elif _is_image(entry):
                return Content(own=True, any=True, folders=folders, why_none="")
            else:
                others.add(Path(entry.name).suffix or entry.name)
        found = any(holds_images(folder / name) for name in folders)
    except OSError as error:
        return Content(own=False, any=False, folders=folders, why_none=error.strerror or "?")
    why = f"only {few(sorted(others))}" if others else "no image files" if folders else "empty"
    return Content(own=False, any=found, folders=folders, why_none=why)


def holds_images(folder: Path) -> bool:
    return any(map(_is_image, _files(folder)))


def _visible(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Yield what is in a folder, in any order, except for hidden names."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM_NAMES:
                yield entry


def _files(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Yield every file below a folder, in any order."""
    for entry in _visible(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        else:
            yield entry


def _is_image(entry: "os.DirEntry[str]") -> bool:
    """Tell by the name whether a file is an image; a link that leads nowhere counts as one."""
    if Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
        return False
    if entry.is_symlink():
        return Path(entry.path).is_file() or not Path(entry.path).exists()
    return entry.is_file()
