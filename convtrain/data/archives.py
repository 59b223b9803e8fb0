"""Archives that write nothing outside of the folder they are extracted into, by any library."""

import contextlib
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from convtrain.errors import CorruptDataError


@contextlib.contextmanager
def contained_extraction() -> Iterator[None]:
    """Check every archive that any library extracts meanwhile, before its first member is written.

    What ``tarfile`` refuses by itself depends on the version of Python, and what is asked of it on
    the version of the library that calls it.

    Raises:
        CorruptDataError: a member has an absolute path, a ``..``, or is no file or folder.
    """
    methods = [(kind, name) for kind in (tarfile.TarFile, zipfile.ZipFile)
               for name in ("extract", "extractall")]  # fmt: skip
    originals = [(kind, name, getattr(kind, name)) for kind, name in methods]
    for kind, name, original in originals:
        setattr(kind, name, _checked(original))
    try:
        yield
    finally:
        for kind, name, original in originals:
            setattr(kind, name, original)


def _checked(extract: Callable[..., Any]) -> Callable[..., Any]:
    def checked(archive: Any, *args: Any, **options: Any) -> Any:
        is_tar = isinstance(archive, tarfile.TarFile)
        for name, is_plain in (_tar_members if is_tar else _zip_members)(archive):
            if not is_plain or _escapes(name):
                raise CorruptDataError(
                    f"{archive.name if is_tar else archive.filename}: refused, its member {name} "
                    f"could be written outside of the folder; nothing was extracted, delete it"
                )
        if is_tar and hasattr(tarfile, "data_filter"):  # Python 3.10.12 and 3.11.4 brought it
            options["filter"] = "data"
        return extract(archive, *args, **options)

    return checked


def _tar_members(archive: tarfile.TarFile) -> Iterator[tuple[str, bool]]:
    """Yield each member's name and whether it is a file or a folder, not a link or a device."""
    for member in archive.getmembers():
        yield member.name, member.isreg() or member.isdir()


def _zip_members(archive: zipfile.ZipFile) -> Iterator[tuple[str, bool]]:
    for member in archive.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        yield member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR)


def _escapes(name: str) -> bool:
    """Tell whether a member's path is absolute or climbs, as POSIX or Windows reads it."""
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root or PurePosixPath(name).is_absolute()) or (
        ".." in windows.parts
    )
