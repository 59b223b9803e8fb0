"""What stands in the folders of an image folder: which files are images, which names do not count.

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
OF_THE_SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"),
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
    *("$recycle.bin", "system volume information", "lost+found"),
}
"""Names, in lower case, that operating systems and network drives put beside images."""


def images_in(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Return the images below a folder, in order, and the files there that are none.

    A folder that is missing has none. Folders that are links are not entered.

    Raises:
        MissingDataError: a folder cannot be read, or a link leads nowhere or out of ``root``.
    """
    images, others = list[Path](), list[Path]()
    try:
        for path, is_image in _files(folder) if folder.is_dir() else ():
            if is_image and path.is_symlink():
                refuse_dead_link(path)
                refuse_outside(path, root)
            (images if is_image else others).append(path)
    except OSError as error:
        reason = error.strerror or error
        raise MissingDataError(f"data.root={root}: {error.filename}: {reason}") from error
    return sorted(images, key=lambda path: path.parts), sorted(others)


def loose_images(folder: Path) -> list[Path]:
    """Return the images in a folder itself, in order."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not _is_hidden(entry.name)]
    return sorted(Path(entry.path) for entry in visible if not entry.is_dir() and _is_image(entry))


def refuse_dead_link(path: Path) -> None:
    if not path.exists():
        raise MissingDataError(f"{path}: a link that leads nowhere; remove it")


def refuse_unprintable(path: Path) -> None:
    """Raise MissingDataError where the name of a class is no text."""
    if not path.name.isprintable():
        shown = one_line(str(path))
        raise MissingDataError(f"{shown}: is no name in UTF-8 that can be printed; rename it")


def refuse_outside(path: Path, root: Path) -> None:
    """Raise MissingDataError where a link below ``root`` leads out of it."""
    try:
        leads_to = path.resolve()
    except (OSError, RuntimeError) as error:  # the latter is a loop, up to Python 3.12
        raise MissingDataError(f"{path}: a loop of links; remove it") from error
    if not leads_to.is_relative_to(root.resolve()):
        raise MissingDataError(
            f"{path}: a link to {leads_to}, outside of data.root={root}; "
            f"put the files themselves there"
        )


class Content(NamedTuple):
    """What a class folder holds.

    Attributes:
        own: whether there are images in itself.
        any: whether there are images in it or further down.
        folders: the names of its folders, as far as it was looked into.
        why_none: why there are no images.
    """

    own: bool
    any: bool
    folders: set[str]
    why_none: str


def look_into(folder: Path) -> Content:
    """Look into a class folder, no further than its first image."""
    folders, others = set[str](), set[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_hidden(entry.name):
                    continue
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
    return any(is_image for _, is_image in _files(folder))


def _files(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield every file below a folder, in no order, and whether it is an image."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield Path(entry.path), _is_image(entry)


def _is_image(entry: "os.DirEntry[str]") -> bool:
    """Tell by the name whether a file is an image; so is a link that leads nowhere."""
    if Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
        return False
    if not entry.is_symlink():
        return entry.is_file()
    return Path(entry.path).is_file() or not Path(entry.path).exists()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in OF_THE_SYSTEM


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of the visible folders in a folder, and of links to folders.

    Raises:
        MissingDataError: a link leads nowhere, so that its class would be lost.
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not _is_hidden(entry.name)]
    for entry in visible:
        if entry.is_symlink():
            refuse_dead_link(Path(entry.path))
        if entry.is_dir():
            refuse_unprintable(Path(entry.path))
    return sorted(entry.name for entry in visible if entry.is_dir())
