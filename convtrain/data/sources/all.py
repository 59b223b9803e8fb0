"""Where images come from. Each source returns its splits as uint8 tensors in memory."""

import contextlib
import gzip
import importlib.util
import io
import math
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convtrain.data.archives import contained_extraction
from convtrain.data.images import Images, Splits, divide, divide_labels
from convtrain.errors import CorruptDataError, MissingDataError, TrainingError, first_line

BLOCK = 1 << 18  # pixels that are drawn at once


def load_digits(*, val_fraction: float, test_fraction: float, split_seed: int) -> Splits:
    """Return scikit-learn's 1,797 digits of 8x8, their 17 grey levels spread over 0-255."""
    rows = _read_digits()
    pixels = torch.from_numpy(np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8))
    everything = Images(pixels.view(-1, 1, 8, 8), torch.from_numpy(rows[:, -1]).long())
    return divide(
        everything,
        val_fraction=val_fraction,
        test=None,
        test_fraction=test_fraction,
        seed=split_seed,
    )


def _read_digits() -> np.ndarray:
    """Return a row for each digit: 64 grey levels, and the label.

    scikit-learn is not imported for its file, which takes longer than everything else here.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt") as file:
                return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    return np.column_stack([images, labels])


def load_synthetic(
    *, shape: list[int], num_classes: int, fill: str, train_size: int, test_size: int,
    val_fraction: float, split_seed: int,
) -> Splits:  # fmt: skip
    """Return made-up images: ``ones`` are white; ``noise`` has a pattern for each class in it."""
    if fill == "ones":
        white = Images(
            torch.full((train_size, *shape), 255, dtype=torch.uint8),
            torch.arange(train_size) % num_classes,
        )
        return Splits(white, white, white.part(slice(test_size)))
    generator = torch.Generator().manual_seed(split_seed)

    def drawn(low: int, high: int, count: int) -> Iterator[Tensor]:
        """Draw images block by block: torch draws integers of 64 bits."""
        for start in range(0, count, rows):
            size = (min(rows, count - start), *shape)
            yield torch.randint(low, high, size, generator=generator)

    rows = max(BLOCK // math.prod(shape), 1)
    patterns = torch.empty((num_classes, *shape), dtype=torch.uint8)
    for part, block in zip(patterns.split(rows), drawn(64, 192, num_classes), strict=True):
        part.copy_(block)

    def draw(count: int, order: Tensor) -> Images:
        """Draw images and put them in an order, which is given as the place of each."""
        labels = torch.arange(count) % num_classes
        pixels = torch.empty((count, *shape), dtype=torch.uint8)
        blocks = zip(labels.split(rows), order.split(rows), drawn(-48, 49, count), strict=True)
        for block_labels, places, noise in blocks:
            pixels[places] = noise.add_(patterns[block_labels]).to(torch.uint8)
        return Images(pixels, labels[order.argsort()])

    labels = torch.arange(train_size) % num_classes
    train, val, _ = divide_labels(
        labels, val_fraction=val_fraction, test_fraction=None, seed=split_seed
    )
    assert val is not None
    images = draw(train_size, torch.cat([train, val]).argsort())
    return Splits(
        images.part(slice(len(train))),
        images.part(slice(len(train), None)),
        draw(test_size, torch.arange(test_size)),
    )


# --- torchvision's datasets -----------------------------------------------------------------------

_IDX = [
    f"{part}-{kind}"
    for part in ("train", "t10k")
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
]
_CIFAR10 = [
    f"cifar-10-batches-py/{n}" for n in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
]

FILES: dict[str, tuple[str, list[str]]] = {
    "mnist": ("MNIST", [f"MNIST/raw/{name}" for name in _IDX]),
    "fashion_mnist": ("FashionMNIST", [f"FashionMNIST/raw/{name}" for name in _IDX]),
    "kmnist": ("KMNIST", [f"KMNIST/raw/{name}" for name in _IDX]),
    "cifar10": ("CIFAR10", _CIFAR10),
    "cifar100": ("CIFAR100", ["cifar-100-python/train", "cifar-100-python/test"]),
    "svhn": ("SVHN", ["train_32x32.mat", "test_32x32.mat"]),
}
"""Name: torchvision's class, and the files it reads, below the root."""


def load_torchvision(
    name: str, *, root: str, download: bool, val_fraction: float, split_seed: int
) -> Splits:
    """Return a dataset of ``torchvision.datasets``.

    Raises:
        MissingDataError: files are missing and ``download`` is off.
        CorruptDataError: a file is there but cannot be read; names it.
        TrainingError: the download failed.
    """
    if download:
        _download(name, root)
    class_name, files = FILES[name]
    missing = [file for file in files if not (Path(root) / file).is_file()]
    if missing:
        raise MissingDataError(
            f"data={name}: {Path(root).absolute()} lacks {', '.join(missing)}; "
            f"fetch with data.download=true, or set data.root=FOLDER"
        )
    for file in files:
        _check(class_name, Path(root) / file)
    with _named_errors(Path(root) / files[0]):
        train = _read(_open(class_name, root, train=True))
        test = _read(_open(class_name, root, train=False))
    return divide(train, val_fraction=val_fraction, test=test, test_fraction=0, seed=split_seed)


def _open(class_name: str, root: str, *, train: bool, download: bool = False) -> Any:
    from torchvision import datasets

    chosen = {"split": "train" if train else "test"} if class_name == "SVHN" else {"train": train}
    return getattr(datasets, class_name)(root, download=download, **chosen)


def _download(name: str, root: str) -> None:
    class_name, _ = FILES[name]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contained_extraction():
            for train in (True, False):
                _open(class_name, root, train=train, download=True)
    except (OSError, RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        reason = first_line(error)
        raise TrainingError(
            f"data={name}: the download into {Path(root).absolute()} failed: {reason}; "
            f"check the network, or put the files there by hand"
        ) from error


def _read(dataset: Any) -> Images:
    """Bring a torchvision dataset's arrays to uint8 (N, C, H, W) and int64 labels."""
    pixels = torch.as_tensor(dataset.data)
    labels = torch.as_tensor(dataset.labels if hasattr(dataset, "labels") else dataset.targets)
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    elif pixels.shape[1] != 3:  # CIFAR holds (N, H, W, C)
        pixels = pixels.permute(0, 3, 1, 2)
    return Images(pixels.contiguous(), labels.long())


def _check(class_name: str, path: Path) -> None:
    """Raise CorruptDataError, with the file's name, unless the file is whole."""
    from torchvision import datasets
    from torchvision.datasets.utils import calculate_md5

    with _named_errors(path):
        if "MNIST" in class_name:
            _check_idx(path)
            return
        dataset = getattr(datasets, class_name)
        if class_name == "SVHN":
            sums = {file: md5 for _, file, md5 in dataset.split_list.values()}
        else:
            sums = dict(dataset.train_list + dataset.test_list)
        if calculate_md5(path) != sums[path.name]:
            raise ValueError("its checksum is not the published one")


def _check_idx(path: Path) -> None:
    """Compare an IDX file's length with the sizes its header declares."""
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
    """Turn what a library raises over a broken file into one line with the file's name."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, struct.error) as error:
        reason = first_line(error)
        raise CorruptDataError(
            f"{path}: cannot be read: {reason}; "
            f"delete it and fetch it again with data.download=true"
        ) from error
