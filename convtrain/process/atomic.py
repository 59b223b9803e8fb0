"""Atomic writes: a file holds its old content or all of the new, even after a crash."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from convtrain.errors import ConfigError, TrainingError
from convtrain.text import format_bytes

FULL = (errno.ENOSPC, errno.EDQUOT)
TOO_LARGE = (*FULL, errno.EFBIG)
DISK_BYTES = 32 << 20  # are written before the disk is asked to store them


class Writer:
    """Stores its first error and then only counts bytes: torch's zip writer loses exceptions."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self.error: OSError | None = None
        self._file = file
        self._on_disk = 0  # bytes that the disk was asked to store

    def write(self, data: bytes | memoryview) -> int:
        self.size += len(data)
        if self.error is None:
            try:
                self._file.write(data)
                self._begin_on_disk()
            except OSError as error:
                self.error = error
        return len(data)

    def _begin_on_disk(self) -> None:
        """Let the disk work while more is computed, so that the fsync at the end is short."""
        new = self.size - self._on_disk
        if new >= DISK_BYTES and hasattr(os, "posix_fadvise"):
            # Pages that are not on the disk yet stay in memory; Linux begins to write them.
            with suppress(OSError):
                os.posix_fadvise(self._file.fileno(), self._on_disk, new, os.POSIX_FADV_DONTNEED)
            self._on_disk = self.size


@contextmanager
def atomic_write(path: Path) -> Iterator[Writer]:
    """Open a file for writing that replaces ``path`` once all its content is on the disk.

    The temporary file is in the same folder, because a rename is atomic only within a file system.

    Raises:
        TrainingError: the disk is full or cannot be written to. The old content is intact.
        ConfigError: a device or a pipe has this name; a rename would put a file in its place.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ConfigError(f"{path}: is a device or a pipe; give the name of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    needed = 0
    try:
        with _opened(temporary) as file:
            writer = Writer(file)
            yield writer
            needed = writer.size
            if writer.error is not None:
                raise writer.error
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError):
            raise TrainingError(_failure(path, needed, error)) from error
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write text atomically; raise TrainingError if the disk is full or cannot be written to."""
    with atomic_write(path) as writer:
        writer.write(text.encode(errors="backslashreplace"))  # a file's name need not be UTF-8


def hard_link(path: Path, name: str) -> None:
    """Give a file a second name in its folder; copy it where the file system has no hard links."""
    temporary, target = path.with_name(f".{name}.{os.getpid()}.tmp"), path.with_name(name)
    try:
        os.link(path, temporary)
        temporary.replace(target)
    except OSError:
        with path.open("rb") as file, atomic_write(target) as writer:
            shutil.copyfileobj(file, writer)
    finally:
        _remove(temporary)  # a rename leaves both names if they are the same file already


def remove_stale_temporaries(folder: Path, suffix: str = "", *, deep: bool = False) -> None:
    """Remove temporary files of a killed process; if ``deep``, no other process may be writing."""
    pattern = f".*{suffix}.*.tmp"
    for path in folder.rglob(pattern) if deep else folder.glob(pattern):
        if re.search(r"\.\d+\.tmp$", path.name):
            _remove(path)


def line_on_full_disk(error: BaseException, folder: Path) -> str | None:
    """Return the message if a full disk caused this error, directly or through others."""
    line = None
    for each in _with_causes(error):
        if isinstance(each, TrainingError):
            return str(each)
        if isinstance(each, OSError) and each.errno in FULL:
            line = f"{folder}: the disk is full, nothing more can be written: {each.strerror}"
    return line


def comes_from_full_disk(error: BaseException) -> bool:
    """Tell whether a full disk caused this error, directly or through others."""
    return any(isinstance(e, OSError) and e.errno in TOO_LARGE for e in _with_causes(error))


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:  # an error that is raised twice is a cycle
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


def _failure(path: Path, needed: int, error: OSError) -> str:
    why = (error.strerror or str(error)).lower()
    if error.errno in TOO_LARGE:
        free = shutil.disk_usage(path.parent).free
        why += f": {format_bytes(needed)} needed, {format_bytes(free)} free on the disk"
    return f"{path}: not written, {why}; what was saved before is intact"


def _remove(path: Path) -> None:
    with suppress(OSError):  # an earlier error is the one to report
        path.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder, and need not sync it
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot sync a folder; the file is complete
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
