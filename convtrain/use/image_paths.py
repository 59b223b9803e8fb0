"""The image files that a command names: files, folders, globs, and a list on standard input."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from convtrain.config.image_files import sorted_files
from convtrain.errors import MissingDataError, did_you_mean, one_line

STDIN = "-"
LONGEST_PATH = 4096  # bytes, with the NUL that ends it


def check_paths(named: Sequence[str]) -> None:
    """Raise MissingDataError for a name without a file or folder, or a glob without images."""
    for name in named:
        if name != STDIN and not os.path.lexists(name) and not _is_glob(name):
            parent = Path(name).parent
            beside = [path.name for path in parent.iterdir()] if parent.is_dir() else []
            near = did_you_mean(Path(name).name, beside)
            raise MissingDataError(f"{one_line(name)}: there is no such file or folder{near}")
        is_one_of_several = len(named) > 1 and name != STDIN and _is_glob(name)
        if is_one_of_several and next(_matching(name, Counter()), None) is None:
            raise MissingDataError(f"{one_line(name)}: there is no image that matches")


def image_paths(named: Sequence[str], stdin: BinaryIO, left_out: Counter[str]) -> Iterator[str]:
    """Yield paths in the order of the names, and sorted within each, in constant memory.

    A file that is named itself counts as an image. Of a folder, and of what a glob matches, those
    files count that :mod:`convtrain.config.image_files` takes for images.

    Args:
        named: files, folders, globs, in which ``**`` is any number of folders, or ``-`` for paths
            of files and folders in ``stdin``, with a line or a NUL after each.
        left_out: counts other files by their suffixes, and linked folders, which are not entered.
    """
    for name in named:
        if name == STDIN:
            for path in _listed(stdin):
                yield from _at(path, left_out)
        elif _is_glob(name):
            yield from _matching(name, left_out)
        else:
            yield from _at(name, left_out)


def _at(path: str, left_out: Counter[str]) -> Iterator[str]:
    if Path(path).is_dir():
        yield from _images(sorted_files(path), left_out)
    else:
        yield path


def _images(files: Iterator[tuple[str, bool]], left_out: Counter[str]) -> Iterator[str]:
    for path, is_image in files:
        if is_image:
            yield path
        else:
            kind = "linked folder" if Path(path).is_dir() else Path(path).suffix or Path(path).name
            left_out[kind] += 1


def _is_glob(name: str) -> bool:
    return glob.has_magic(name) and not os.path.lexists(name)


def _matching(pattern: str, left_out: Counter[str]) -> Iterator[str]:
    """Yield the images of which the path, or that of a folder on the way, matches."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root, patterns = str(Path(*parts[:fixed])), parts[fixed:]

    def fits(path: str, is_folder: bool) -> bool:
        return _fits(Path(path).parts[fixed:], patterns, is_folder)

    files = sorted_files(root, enters=lambda path: fits(path, True))
    for path in _images((each for each in files if fits(each[0], False)), left_out):
        yield path if fixed else str(Path(path))  # as a shell writes it, without ./


def _fits(parts: Sequence[str], patterns: Sequence[str], is_folder: bool) -> bool:
    """Tell whether the patterns match the first parts, or may match what the folder holds."""
    if not patterns:
        return True
    if not parts:
        return is_folder
    if patterns[0] == "**":
        return _fits(parts, patterns[1:], is_folder) or _fits(parts[1:], patterns, is_folder)
    return fnmatchcase(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:], is_folder)


def _listed(stream: BinaryIO) -> Iterator[str]:
    """Yield the paths of a list; a NUL within a path's length tells that NULs end them."""
    buffer = stream.read(LONGEST_PATH)
    end = b"\0" if b"\0" in buffer else b"\n"
    while True:
        *whole, buffer = buffer.split(end)
        for path in whole:
            if path := path.removesuffix(b"\r") if end == b"\n" else path:
                yield os.fsdecode(path)
        if not (more := stream.read1(1 << 16)):  # type: ignore[attr-defined]
            break
        buffer += more
    if buffer:
        yield os.fsdecode(buffer)
