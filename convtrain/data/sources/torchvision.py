"""The datasets of ``torchvision.datasets``, whose files are checked before they are read."""

import contextlib
import io
import math
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from convtrain.config.data_sections import Fold
from convtrain.data.archives import contained_extraction
from convtrain.data.images import Images, Splits, divide
from convtrain.errors import CorruptDataError, MissingDataError, TrainingError, first_line

CLASSES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}
"""Name of a dataset to its class in torchvision."""


def load(
    *, name: str, root: str, download: bool, val_fraction: float | Fold, split_seed: int
) -> Splits:
    """Return a dataset of ``torchvision.datasets``.

    Raises:
        MissingDataError: files are missing and ``download`` is off.
        CorruptDataError: a file cannot be read.
        TrainingError: the download failed.
    """
    folder = Path(root)
    if download:
        _download(name, folder)
    files = checksums(name)
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise MissingDataError(
            f"data={name}: {folder.absolute()} lacks {', '.join(missing)}; "
            f"fetch with data.download=true, or set data.root=FOLDER"
        )
    for file, checksum in files.items():
        with _named_errors(folder / file):
            _check(folder / file, checksum)
    with _named_errors(folder / next(iter(files))):
        train, test = (_read(_open(name, folder, train=train)) for train in (True, False))
    return divide(train, val_fraction=val_fraction, test=test, seed=split_seed)


def checksums(name: str) -> dict[str, str | None]:
    """Return the files that torchvision reads, relative to the root, with their MD5 sums.

    The sum is None for MNIST and its variants: only those of the compressed files are published.
    """
    dataset = _dataset(name)
    if hasattr(dataset, "resources"):
        return {f"{dataset.__name__}/raw/{Path(file).stem}": None for file, _ in dataset.resources}
    if hasattr(dataset, "split_list"):
        return {file: sum_ for _, file, sum_ in (dataset.split_list[s] for s in ("train", "test"))}
    listed = (*dataset.train_list, *dataset.test_list)
    return {f"{dataset.base_folder}/{file}": sum_ for file, sum_ in listed}


def _dataset(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, CLASSES[name])


def _open(name: str, root: Path, *, train: bool, download: bool = False) -> Any:
    dataset = _dataset(name)
    if hasattr(dataset, "split_list"):
        return dataset(root, split="train" if train else "test", download=download)
    return dataset(root, train=train, download=download)


def _download(name: str, root: Path) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()), contained_extraction():
            for train in (True, False):
                _open(name, root, train=train, download=True)
    except (OSError, RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"data={name}: the download into {root.absolute()} failed: {first_line(error)}; "
            f"check the network, or put the files there by hand"
        ) from error


def _read(dataset: Any) -> Images:
    pixels = torch.as_tensor(dataset.data)
    labels = torch.as_tensor(dataset.labels if hasattr(dataset, "labels") else dataset.targets)
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    elif pixels.shape[1] != 3:  # CIFAR holds (N, H, W, C)
        pixels = pixels.permute(0, 3, 1, 2)
    return Images(pixels.contiguous(), labels.long())


def _check(path: Path, checksum: str | None) -> None:
    """Compare the file's checksum, or an IDX file's size with the one in its header."""
    from torchvision.datasets.utils import calculate_md5

    if checksum is not None:
        if calculate_md5(path) != checksum:
            raise ValueError("its checksum is not the published one")
        return
    with path.open("rb") as file:
        head = file.read(16)
    if len(head) < 4 or head[:3] != b"\x00\x00\x08":
        raise ValueError("not an IDX file of bytes")
    dimensions = head[3]
    shape = struct.unpack(f">{dimensions}I", head[4 : 4 + 4 * dimensions])
    expected, size = 4 + 4 * dimensions + math.prod(shape), path.stat().st_size
    if size != expected:
        raise ValueError(f"{size} bytes, but its header declares {expected}")


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, struct.error) as error:
        raise CorruptDataError(
            f"{path}: cannot be read: {first_line(error)}; "
            f"delete it and fetch it again with data.download=true"
        ) from error
