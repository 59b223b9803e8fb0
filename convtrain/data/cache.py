"""Files of decoded images, kept from run to run within a declared size."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL

from convtrain.errors import ConfigError
from convtrain.process.atomic import atomic_write, remove_stale_temporaries

GIB = 1 << 30
SUFFIX = ".uint8"


def default_folder() -> Path:
    """Return ``convtrain`` in the user's folder of caches.

    Raises:
        ConfigError: there is none, because the user has no home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convtrain"
    except RuntimeError as error:
        raise ConfigError(
            "data.cache_dir=null: this user has no home directory; set data.cache_dir=FOLDER"
        ) from error


def fingerprint(files: Sequence[Path], *settings: object) -> str:
    """Return a name for what these files decode to: of their names, sizes and times, and more.

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
    name: str,
    blocks: Callable[[], Iterable[np.ndarray]],
    *,
    size: int,
    folder: Path,
    most: float,
) -> Path:
    """Return the file of this name, and make it if it is not there.

    It appears whole or not at all. Of several processes that want it, one makes it and the others
    wait. Those that were used longest ago are deleted to make room.

    Args:
        name: of the content, a :func:`fingerprint`.
        blocks: makes the content.
        size: of the content in bytes.
        folder: of the cache.
        most: GiB that all its files may take together.

    Raises:
        ConfigError: it is larger than the cache or the disk.
        TrainingError: the disk is full or cannot be written to.
    """
    path = folder / f"{name}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if path.is_file() and path.stat().st_size == size:
                os.utime(path)
                return path
            remove_stale_temporaries(folder, SUFFIX)
            _make_room(folder, size, most)
            with atomic_write(path) as sink:
                for block in blocks():
                    sink.write(block.data)
    except OSError as error:
        raise ConfigError(
            f"data.cache_dir={folder}: {(error.strerror or str(error)).lower()}; "
            f"set data.cache_dir=FOLDER, or raise data.memory_gib"
        ) from error
    return path


def _make_room(folder: Path, size: int, most: float) -> None:
    needed = f"the decoded images take {size / GIB:.3g} GiB"
    if size > most * GIB:
        raise ConfigError(
            f"data.cache_gib={most:g}: {needed}, more than data.memory_gib and data.cache_gib "
            f"allow; set data.cache_gib={_above(size)} or a smaller data.shape"
        )
    used = {path: path.stat() for path in folder.glob(f"*{SUFFIX}")}
    total = sum(found.st_size for found in used.values())
    for path in sorted(used, key=lambda p: used[p].st_mtime):
        free = shutil.disk_usage(folder).free
        if total + size <= most * GIB and size <= free:
            return
        path.unlink(missing_ok=True)
        total -= used[path].st_size
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ConfigError(
            f"data.cache_dir={folder}: {needed}, and the disk has {free / GIB:.3g} GiB free; "
            f"set data.cache_dir=FOLDER on another, or data.memory_gib={_above(size)}"
        )


def _above(size: int) -> str:
    """Return GiB that are enough for so many bytes, in few digits."""
    return f"{size / GIB * 1.01 + 1e-3:.3g}"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here; one that dies does not count."""
    with (folder / "lock").open("w") as file:
        with contextlib.suppress(ImportError, OSError):  # Windows, and some network file systems
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
