"""A cache of decoded images, limited in size."""

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from io import FileIO
from pathlib import Path

import numpy as np
import PIL

from convtrain.config.data_sections import GIB
from convtrain.data.pixel_file import PixelFile
from convtrain.errors import ConfigError
from convtrain.process.atomic import atomic_write, remove_stale_temporaries
from convtrain.process.lock import locked

SUFFIX = ".uint8"


def default_folder() -> Path:
    """Return ``convtrain`` in the user's cache folder; ConfigError without a home directory."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convtrain"
    except RuntimeError as error:
        raise ConfigError(
            "data.cache_dir=null: this user has no home directory; set data.cache_dir=FOLDER"
        ) from error


def cache_folder(cache_dir: str | None) -> Path:
    """Return the folder that ``data.cache_dir`` names, or the default one."""
    return Path(cache_dir) if cache_dir else default_folder()


def cache_key(files: Sequence[Path], *settings: object) -> str:
    """Hash the files' paths, sizes and times, in order, and the settings that affect decoding."""
    digest = hashlib.sha256(repr((PIL.__version__, *settings)).encode())
    for path in files:
        found = path.stat()
        digest.update(os.fsencode(path.absolute()))  # a path need not be UTF-8
        digest.update(f"\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def cache_file(folder: Path, key: str) -> Path:
    return folder / f"{key}{SUFFIX}"


def cached(
    key: str,
    blocks: Callable[[], Iterable[np.ndarray]],
    *,
    size: int,
    folder: Path,
    max_gib: float,
) -> Path:
    """Return the cache file of this key, and write it first if it does not exist.

    The file appears whole or not at all. One process writes it while the others wait. The least
    recently used files are deleted to make room for ``size`` bytes. A ConfigError says that the
    cache or the disk is too small, a TrainingError that the disk is full or cannot be written to.
    """
    path = cache_file(folder, key)
    try:
        with locked(folder, waits=True):
            if path.is_file() and path.stat().st_size == size:
                os.utime(path)
                return path
            remove_stale_temporaries(folder, SUFFIX)
            _make_room(folder, size, max_gib)
            with atomic_write(path) as file:
                for block in blocks():
                    file.write(block.data)
    except OSError as error:
        raise _not_written(folder, error) from error
    return path


def spilled(
    blocks: Iterable[np.ndarray], shape: tuple[int, ...], *, folder: Path, max_gib: float
) -> PixelFile:
    """Write images of ``shape`` (N, channels, height, width) into a file that has no name.

    It belongs to this process and vanishes with it, because what is in a dataset of a user's own
    can change without a trace, so that a later process could not know whether the file is right.
    Errors are those of :func:`cached`.
    """
    return PixelFile(folder, shape[1:], unnamed(blocks, math.prod(shape), folder, max_gib))


def unnamed(blocks: Iterable[np.ndarray], size: int, folder: Path, max_gib: float) -> FileIO:
    """Write blocks of about ``size`` bytes into a file that has no name; see :func:`spilled`."""
    try:
        with locked(folder, waits=True):
            _make_room(folder, size, max_gib)
        with tempfile.TemporaryFile(dir=folder) as file:
            for block in blocks:
                file.write(block.data)
            file.flush()
            return FileIO(os.dup(file.fileno()))
    except OSError as error:
        raise _not_written(folder, error) from error


def _not_written(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"data.cache_dir={folder}: {(error.strerror or str(error)).lower()}; "
        f"set data.cache_dir=FOLDER, or raise data.memory_gib"
    )


def _make_room(folder: Path, size: int, max_gib: float) -> None:
    refuse_too_large(folder, size, max_gib)
    used = {path: path.stat() for path in folder.glob(f"*{SUFFIX}")}
    total = sum(found.st_size for found in used.values())
    for path in sorted(used, key=lambda p: used[p].st_mtime):
        if total + size <= max_gib * GIB and size <= shutil.disk_usage(folder).free:
            return
        path.unlink(missing_ok=True)
        total -= used[path].st_size


def refuse_too_large(folder: Path, size: int, max_gib: float) -> None:
    """Raise the ConfigError of images that the cache or its disk cannot take."""
    needed = f"the decoded images take {size / GIB:.3g} GiB"
    enough = f"{size / GIB * 1.01 + 1e-3:.3g}"
    if size > max_gib * GIB:
        raise ConfigError(
            f"data.cache_gib={max_gib:g}: {needed}, more than data.memory_gib and data.cache_gib "
            f"allow; set data.cache_gib={enough} or a smaller data.shape or data.store_size; "
            f"with data.store_size, data.decode=each_epoch needs no cache"
        )
    while not folder.is_dir():  # it is made when it is needed
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size > free + sum(path.stat().st_size for path in folder.glob(f"*{SUFFIX}")):
        raise ConfigError(
            f"data.cache_dir={folder}: {needed}, and the disk has {free / GIB:.3g} GiB free; "
            f"set data.cache_dir=FOLDER on another, or data.memory_gib={enough}"
        )
