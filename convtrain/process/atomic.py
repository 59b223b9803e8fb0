"""Files that hold the old content or the new one, whatever happens while they are written."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from convtrain.errors import TrainingError

FULL = (errno.ENOSPC, errno.EDQUOT)


class Sink:
    """Where the content of a file goes. Once the disk is full it only counts.

    So the message can say how much is needed, and whoever writes need not handle errors: torch's
    zip writer, for one, loses an exception that is raised under it.

    Attributes:
        size: bytes that were to be written so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self.error: OSError | None = None
        self._file = file

    def write(self, data: bytes | memoryview) -> int:
        self.size += len(data)
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)


@contextmanager
def atomic_write(path: Path) -> Iterator[Sink]:
    """Open a file that appears under its name when all of it lies on the disk, or never.

    It is written beside its destination, whatever TMPDIR is, because a rename is atomic only
    within a file system.

    Raises:
        TrainingError: the disk is full or cannot be written to. What stood there is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    needed = 0
    try:
        with _opened(temporary) as file:
            sink = Sink(file)
            yield sink
            needed = sink.size
            if sink.error is not None:
                raise sink.error
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError):
            raise TrainingError(_why_not_written(path, needed, error)) from error
        raise


def hard_link(path: Path, name: str) -> None:
    """Give a file a second name in its folder, without room where the file system has links.

    Raises:
        TrainingError: the disk is full or cannot be written to.
    """
    temporary, target = path.with_name(f".{name}.{os.getpid()}.tmp"), path.with_name(name)
    try:
        os.link(path, temporary)
        temporary.replace(target)
    except OSError:
        with path.open("rb") as file, atomic_write(target) as sink:
            shutil.copyfileobj(file, sink)
    finally:
        _remove(temporary)  # where both names were one file already, a rename does nothing


def remove_stale_temporaries(folder: Path, suffix: str = "", *, deep: bool = False) -> None:
    """Remove what a killed process left half written of files with this suffix.

    Args:
        deep: in the folders below as well; nobody else may be writing there.
    """
    pattern = f".*{suffix}.*.tmp"
    for path in folder.rglob(pattern) if deep else folder.glob(pattern):
        if re.search(r"\.\d+\.tmp$", path.name):
            _remove(path)


def line_on_full_disk(error: BaseException, folder: Path) -> str | None:
    """Return what to say if this error, or one that it hides, comes from a full disk.

    Loggers fail too when they are closed after a checkpoint could not be written.
    """
    line = None
    for hidden in _chain(error):
        if isinstance(hidden, TrainingError):
            return str(hidden)
        if isinstance(hidden, OSError) and hidden.errno in FULL:
            line = f"{folder}: the disk is full, nothing more can be written: {hidden.strerror}"
    return line


def comes_from_full_disk(error: BaseException) -> bool:
    """Tell whether this error, or one that it hides, comes from a full disk."""
    return any(isinstance(e, OSError) and e.errno in (*FULL, errno.EFBIG) for e in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    hidden: BaseException | None = error
    while hidden is not None and id(hidden) not in seen:  # one raised twice hides itself
        yield hidden
        seen.add(id(hidden))
        hidden = hidden.__cause__ or hidden.__context__


def _why_not_written(path: Path, needed: int, error: OSError) -> str:
    why = (error.strerror or str(error)).lower()
    if error.errno in (*FULL, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free
        why += f": {_size(needed)} needed, {_size(free)} free on the disk"
    return f"{path}: not written, {why}; what was saved before is intact"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


def _remove(path: Path) -> None:
    with suppress(OSError):  # what went wrong before is what is worth telling
        path.unlink()


def _sync_folder(folder: Path) -> None:
    """Put a rename itself on the disk; folders cannot be opened on Windows, and need not be."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can, and the file is whole without it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
