"""Archive extraction that writes nothing outside the target folder."""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath, PureWindowsPath

from convtrain.errors import CorruptDataError

Archive = tarfile.TarFile | zipfile.ZipFile


@contextmanager
def contained_extraction() -> Iterator[None]:
    """Refuse unsafe archives that any library extracts in this context, before a member is written.

    A CorruptDataError names a member that has an absolute path or a ``..``, or is a link or device.
    ``tarfile``'s own checks depend on the versions of Python and of the calling library.
    """
    with ExitStack() as originals:
        for kind in (tarfile.TarFile, zipfile.ZipFile):
            for name in ("extract", "extractall"):
                original = getattr(kind, name)
                originals.callback(setattr, kind, name, original)
                setattr(kind, name, _checked(original))
        yield


def _checked(extract: Callable[..., object]) -> Callable[..., object]:
    def checked(archive: Archive, *args: object, **options: object) -> object:
        for name, is_plain in _members(archive):
            windows = PureWindowsPath(name)
            absolute = windows.drive or windows.root or PurePosixPath(name).is_absolute()
            if absolute or ".." in windows.parts or not is_plain:
                file = archive.filename if isinstance(archive, zipfile.ZipFile) else archive.name
                raise CorruptDataError(
                    f"{file!s}: refused, its member {name} could be written outside of the folder; "
                    f"nothing was extracted, delete it"
                )
        if isinstance(archive, tarfile.TarFile) and hasattr(tarfile, "data_filter"):
            options["filter"] = "data"  # since Python 3.10.12 and 3.11.4
        return extract(archive, *args, **options)

    return checked


def _members(archive: Archive) -> Iterator[tuple[str, bool]]:
    """Yield each member's name, and whether it is a regular file or a folder."""
    if isinstance(archive, tarfile.TarFile):
        for member in archive.getmembers():
            yield member.name, member.isreg() or member.isdir()
    else:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            yield entry.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR)
