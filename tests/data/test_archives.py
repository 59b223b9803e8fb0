"""An archive writes nothing outside the folder it is extracted into, whatever the versions."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torchvision import datasets
from torchvision.datasets.utils import calculate_md5, extract_archive

from convtrain.data.archives import contained_extraction
from convtrain.data.sources.torchvision import CLASSES, load
from convtrain.errors import ConvtrainError, CorruptDataError

FRACTIONS: dict[str, Any] = {"val_fraction": 0.2, "split_seed": 0}
OUTSIDE = "OUTSIDE"  # stands for the absolute path of the folder around the archive's

HOSTILE = {
    "a path upwards": ("../escaped", None),
    "a path upwards from a folder": ("inside/../../escaped", None),
    "a path upwards as Windows writes it": ("inside\\..\\..\\escaped", None),
    "an absolute path": (f"{OUTSIDE}/escaped", None),
    "a drive of Windows": ("C:\\escaped", None),
    "a link upwards": ("link", "../escaped"),
    "a link to an absolute path": ("link", f"{OUTSIDE}/escaped"),
    "a link within the archive": ("link", "good"),
}


def write_archive(path: Path, *members: tuple[str, str | None]) -> None:
    """Write an archive of a member called ``good`` and of others; one with a target is a link."""
    around = str(path.parent.parent)
    named = [
        (name.replace(OUTSIDE, around), target and target.replace(OUTSIDE, around))
        for name, target in (("good", None), *members)
    ]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, target in named:
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (stat.S_IFREG if target is None else stat.S_IFLNK) << 16
                archive.writestr(entry, target or "content")
        return
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, target in named:
            info = tarfile.TarInfo(name)
            if target is None:
                info.size = len(b"content")
                tar.addfile(info, io.BytesIO(b"content"))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, target
                tar.addfile(info)


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder for archives; what is around it must be the same before and after."""
    folder = tmp_path / "around" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "kept").write_text("as it was")
    yield folder
    assert sorted(path.name for path in folder.parent.iterdir()) == ["data", "kept"]
    assert (folder.parent / "kept").read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["around"]


@pytest.mark.parametrize("filters", [True, False], ids=["this Python", "a Python without filters"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
@pytest.mark.parametrize("member", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused_before_anything_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, member: tuple[str, str], suffix: str, filters: bool
) -> None:
    if not filters:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    archive = root / f"archive{suffix}"
    write_archive(archive, member)
    with pytest.raises(CorruptDataError) as raised, contained_extraction():
        extract_archive(str(archive), str(root))
    assert str(archive) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert everything_in(root) == [archive.name]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_a_harmless_archive_is_extracted(root: Path, suffix: str) -> None:
    write_archive(root / f"archive{suffix}", ("folder/file", None))
    methods = [tarfile.TarFile.extractall, zipfile.ZipFile.extractall]
    with contained_extraction():
        extract_archive(str(root / f"archive{suffix}"), str(root))
    assert everything_in(root) == [f"archive{suffix}", "folder", "folder/file", "good"]
    assert (root / "folder" / "file").read_text() == "content"
    assert methods == [tarfile.TarFile.extractall, zipfile.ZipFile.extractall]


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
@pytest.mark.parametrize("name", CLASSES)
def test_whatever_a_dataset_downloads_is_checked(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str
) -> None:
    archive = root / f"archive{suffix}"
    write_archive(archive, ("../escaped", None))

    def download(_: Any) -> None:
        extract_archive(str(archive), str(root))

    monkeypatch.setattr(getattr(datasets, CLASSES[name]), "download", download)
    with pytest.raises(CorruptDataError, match=r"its member \.\./escaped"):
        load(name=name, root=str(root), download=True, **FRACTIONS)
    assert everything_in(root) == [archive.name]


@pytest.mark.parametrize("known", [False, True], ids=["unknown archive", "known checksum"])
@pytest.mark.parametrize("member", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_archive_in_the_place_of_cifar10_s(
    root: Path, monkeypatch: pytest.MonkeyPatch, member: tuple[str, str], known: bool
) -> None:
    archive = root / "cifar-10-python.tar.gz"
    write_archive(archive, member)
    if known:
        monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", calculate_md5(archive))

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    for name in ("_get_redirect_url", "_urlretrieve"):
        monkeypatch.setattr(f"torchvision.datasets.utils.{name}", offline)
    refusal = CorruptDataError if known else ConvtrainError  # another archive is not opened at all
    with pytest.raises(refusal) as raised:
        load(name="cifar10", root=str(root), download=True, **FRACTIONS)
    assert len(str(raised.value).splitlines()) == 1
    assert everything_in(root) in ([archive.name], [])
