"""Files of decoded images, kept from run to run within a declared size."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL

from convtrain.config.groups.data import GIB
from convtrain.errors import ConfigError
from convtrain.process.atomic import atomic_write, remove_stale_temporaries
from convtrain.process.lock import locked

SUFFIX = ".uint8"


def default_folder() -> Path:
    """Return ``convtrain`` in the user's cache folder.

    Raises:
        ConfigError: the user has no home directory.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convtrain"
    except RuntimeError as error:
        raise ConfigError(
            "data.cache_dir=null: this user has no home directory; set data.cache_dir=FOLDER"
        ) from error


def cache_key(files: Sequence[Path], *settings: object) -> str:
    """Return a name for what files decode to: a hash of their names, sizes, times and settings.

    Args:
        files: in the order in which they are decoded.
        settings: whatever else the pixels depend on.
    """
    digest = hashlib.sha256(repr((PIL.__version__, *settings)).encode())
    for path in files:
        found = path.stat()
        digest.update(os.fsencode(path.absolute()))  # a name need not be UTF-8
        digest.update(f"\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def cached(
    key: str,
    blocks: Callable[[], Iterable[np.ndarray]],
    *,
    size: int,
    folder: Path,
    max_gib: float,
) -> Path:
    """Return the file of this key, and make it if it does not exist.

    The file appears whole or not at all. One of several processes makes it, and the others wait.
    The files that were used longest ago are deleted to make room.

    Args:
        key: of the content, a :func:`cache_key`.
        blocks: makes the content.
        size: of the content in bytes.
        folder: of the cache.
        max_gib: the most that all files of the cache take together.

    Raises:
        ConfigError: the content is larger than the cache or the disk.
        TrainingError: the disk is full or cannot be written to.
    """
    path = folder / f"{key}{SUFFIX}"
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
        raise ConfigError(
            f"data.cache_dir={folder}: {(error.strerror or str(error)).lower()}; "
            f"set data.cache_dir=FOLDER, or raise data.memory_gib"
        ) from error
    return path


def _make_room(folder: Path, size: int, max_gib: float) -> None:
    needed = f"the decoded images take {size / GIB:.3g} GiB"
    enough = f"{size / GIB * 1.01 + 1e-3:.3g}"
    if size > max_gib * GIB:
        raise ConfigError(
            f"data.cache_gib={max_gib:g}: {needed}, more than data.memory_gib and data.cache_gib "
            f"allow; set data.cache_gib={enough} or a smaller data.shape"
        )
    used = {path: path.stat() for path in folder.glob(f"*{SUFFIX}")}
    total = sum(found.st_size for found in used.values())
    for path in sorted(used, key=lambda p: used[p].st_mtime):
        if total + size <= max_gib * GIB and size <= shutil.disk_usage(folder).free:
            return
        path.unlink(missing_ok=True)
        total -= used[path].st_size
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ConfigError(
            f"data.cache_dir={folder}: {needed}, and the disk has {free / GIB:.3g} GiB free; "
            f"set data.cache_dir=FOLDER on another, or data.memory_gib={enough}"
        )
