"""The files of an image folder: which are images and which are ignored. See docs/data.md."""

import contextlib
import heapq
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
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
"""Lower-case names that operating systems and network drives put beside images."""
NAMES_IN_MEMORY = 100_000  # of one folder; more are sorted with temporary files


def images_in(
    folder: Path, root: Path, hidden: list[Path] | None = None
) -> tuple[list[Path], list[Path]]:
    """Return the sorted images below a folder, and the sorted other files.

    A missing folder has none. Linked folders are not entered. Hidden files and folders, and those
    of the operating system, are appended to ``hidden``.

    Raises:
        MissingDataError: a folder is unreadable, or a link is broken or leads out of ``root``.
    """
    images, others = list[Path](), list[Path]()
    try:
        for entry in _files(folder, hidden) if folder.is_dir() else ():
            path, is_image = Path(entry.path), _is_image(entry)
            if is_image and entry.is_symlink():
                refuse_bad_link(path, root)
            (images if is_image else others).append(path)
    except OSError as error:
        reason = error.strerror or error
        raise MissingDataError(f"data.root={root}: {error.filename}: {reason}") from error
    return sorted(images, key=lambda path: path.parts), sorted(others)


def sorted_files(
    folder: str, enters: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, bool]]:
    """Yield the files below a folder and whether they are images, in the order of ``images_in``.

    Linked folders are not entered, nor those that ``enters`` refuses. A folder that cannot be read
    is yielded itself, like an image. The memory does not grow with the number of files.
    """
    try:
        next(_visible(folder), None)
    except OSError:
        yield folder, True
        return
    for marked in sorted_names(map(_marked, _visible(folder))):
        name, kind = marked.split("\0")
        path = os.path.join(folder, name)  # noqa: PTH118 (Path would drop a leading ./)
        if kind != "folder":
            yield path, kind == "image"
        elif enters(path):
            yield from sorted_files(path, enters)


def _marked(entry: "os.DirEntry[str]") -> str:
    """Return a name and what it is, with a NUL between them, which precedes every character."""
    if entry.is_dir(follow_symlinks=False):
        return f"{entry.name}\0folder"
    return f"{entry.name}\0image" if _is_image(entry) else f"{entry.name}\0other"


def sorted_names(names: Iterable[str], most: int = NAMES_IN_MEMORY) -> Iterator[str]:
    """Yield names in order; beyond ``most``, sorted parts are in temporary files and are merged."""
    names, parts = iter(names), list[Iterable[str]]()
    with contextlib.ExitStack() as files:
        while part := sorted(islice(names, most)):
            if len(part) < most:
                parts.append(part)
                break
            file = files.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
            file.writelines(json.dumps(name) + "\n" for name in part)
            file.seek(0)
            parts.append(map(json.loads, file))
        yield from heapq.merge(*parts)


def loose_images(folder: Path, hidden: list[Path] | None = None) -> list[Path]:
    """Return the sorted images directly in a folder, and append to ``hidden`` what is."""
    loose = (e for e in _visible(folder, hidden) if not e.is_dir() and _is_image(e))
    return sorted(Path(entry.path) for entry in loose)


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of the visible folders in a folder, linked ones included.

    Raises:
        MissingDataError: a link is broken, which would lose a class, or a name is not printable.
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
    """Raise MissingDataError for a broken link, or one that leads out of ``root``."""
    if not path.exists():  # a loop of links included
        raise MissingDataError(f"{path}: a link that leads nowhere; remove it")
    if root is not None and not (target := path.resolve()).is_relative_to(root.resolve()):
        raise MissingDataError(
            f"{path}: a link to {target}, outside of data.root={root}; put the files themselves "
            f"there"
        )


class Content(NamedTuple):
    """The content of a class folder."""

    own: bool  # it contains images itself
    any: bool  # it or a folder below contains images
    folders: set[str]  # names of its folders, up to its first image
    why_none: str  # why there are no images


def look_into(folder: Path) -> Content:
    """Read a class folder up to its first image."""
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


def _visible(folder: Path | str, hidden: list[Path] | None = None) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM_NAMES:
                yield entry
            elif hidden is not None:
                hidden.append(Path(entry.path))


def _files(folder: Path, hidden: list[Path] | None = None) -> Iterator["os.DirEntry[str]"]:
    for entry in _visible(folder, hidden):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), hidden)
        else:
            yield entry


def _is_image(entry: "os.DirEntry[str]") -> bool:
    """Tell by its suffix whether a file is an image; a broken link counts as one."""
    if Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
        return False
    if entry.is_symlink():
        return Path(entry.path).is_file() or not Path(entry.path).exists()
    return entry.is_file()
