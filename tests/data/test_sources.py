"""Where images come from: the right numbers, and one line where something is wrong."""

import hashlib
import pickle
import re
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets
from torchvision.datasets.utils import calculate_md5

from convtrain.data.images import split_stratified
from convtrain.data.sources import digits, synthetic, torchvision
from convtrain.errors import (
    ConfigError,
    CorruptDataError,
    MissingDataError,
    TrainingError,
)
from tests.conftest import REPOSITORY, compose
from tests.data.resident import in_memory

SHA256 = "de529e89a4ade1a099f30ea646e31e8924ba3aeb7ab1c1cbe6fc4ba004aea74c"
"""Of pixels and labels of all splits, when scikit-learn's own file was read."""

read_torchvision = partial(torchvision.load, val_fraction=0.25, split_seed=0)


def test_the_digits_are_the_published_ones() -> None:
    splits = digits.load(val_fraction=0.1, test_fraction=0.2, split_seed=0)
    found = hashlib.sha256()
    for part in (splits.train, splits.val, splits.test):
        found.update(part.pixels.numpy().tobytes() + part.labels.numpy().tobytes())
    assert found.hexdigest() == SHA256


def test_digits_are_scikit_learns_divided_without_overlap() -> None:
    sklearn_digits = pytest.importorskip("sklearn.datasets").load_digits
    splits = digits.load(val_fraction=0.1, test_fraction=0.2, split_seed=0)
    parts = (splits.train, splits.val, splits.test)
    assert sum(len(part) for part in parts) == 1797
    original, labels = sklearn_digits(return_X_y=True)
    grey = torch.cat([in_memory(part) for part in parts]).flatten(1).float() * 16 / 255
    ours = {(*tuple(row), label) for row, label in zip(
        grey.round().int().tolist(),
        torch.cat([part.labels for part in parts]).tolist(),
        strict=True,
    )}  # fmt: skip
    theirs = {
        (*tuple(r), n) for r, n in zip(original.astype(int).tolist(), labels.tolist(), strict=True)
    }
    assert ours == theirs


def test_nothing_imports_scikit_learn_or_scipy() -> None:
    importing = re.compile(r"^\s*(import|from) (sklearn|scipy)\b", re.MULTILINE)
    files = (REPOSITORY / "convtrain").rglob("*.py")
    assert not [path for path in files if importing.search(path.read_text(encoding="utf-8"))]


def test_a_split_keeps_the_proportions_of_the_classes_and_its_seed_alone_moves_it() -> None:
    labels = torch.tensor([0] * 100 + [1] * 50 + [2] * 10)[torch.randperm(160)]
    rest, chosen = split_stratified(labels, 0.2, seed=3)
    assert torch.equal(torch.cat([rest, chosen]).sort().values, torch.arange(160))
    assert labels[chosen].bincount().tolist() == [20, 10, 2]
    assert torch.equal(chosen, split_stratified(labels, 0.2, seed=3)[1])
    assert not torch.equal(chosen, split_stratified(labels, 0.2, seed=4)[1])


def test_a_class_of_one_image_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="class 1 has 1 image"):
        split_stratified(torch.tensor([0, 0, 0, 1]), 0.5, seed=0)


def test_synthetic_images_have_the_declared_shape_and_can_be_told_apart() -> None:
    splits = synthetic.load(
        fill="noise", shape=[2, 5, 7], num_classes=3, train_size=60, test_size=30,
        val_fraction=0.25, split_seed=0,
    )  # fmt: skip
    assert splits.train.pixels.shape == (45, 2, 5, 7)
    means = torch.stack(
        [in_memory(splits.train)[splits.train.labels == c].float().mean(0) for c in range(3)]
    )
    distance = (splits.test.pixels.float().unsqueeze(1) - means).square().flatten(2).sum(2)
    assert torch.equal(distance.argmin(1), splits.test.labels)


# --- torchvision's datasets, with files made here -------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def make_mnist(root: Path, folder: str = "MNIST") -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28))
    for part in ("train", "t10k"):
        write_idx(root / folder / "raw" / f"{part}-images-idx3-ubyte", pixels)
        write_idx(root / folder / "raw" / f"{part}-labels-idx1-ubyte", np.arange(40) % 4)
    return pixels


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_idx_files_are_read(tmp_path: Path, name: str, folder: str) -> None:
    pixels = make_mnist(tmp_path, folder)
    splits = read_torchvision(name=name, root=str(tmp_path), download=False)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (32, 8, 40)
    assert torch.equal(in_memory(splits.test)[:, 0], torch.from_numpy(pixels).to(torch.uint8))
    assert torch.equal(splits.test.labels, torch.arange(40) % 4)


def make_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    for name in torchvision.checksums("cifar10"):
        content = {"data": rows, "labels": [i % 2 for i in range(20)]}
        (root / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}))
    sums = {path.name: calculate_md5(path) for path in folder.iterdir()}
    for table in ("train_list", "test_list"):
        listed = [[name, sums[name]] for name, _ in getattr(datasets.CIFAR10, table)]
        monkeypatch.setattr(datasets.CIFAR10, table, listed)
    meta = {**datasets.CIFAR10.meta, "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return rows


def test_cifar10_is_read_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_cifar10(tmp_path, monkeypatch)
    splits = read_torchvision(name="cifar10", root=str(tmp_path), download=False)
    expected = torch.from_numpy(rows).view(-1, 3, 32, 32)
    assert torch.equal(in_memory(splits.test), expected)
    assert len(splits.train) + len(splits.val) == 100


def test_a_changed_cifar_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar10(tmp_path, monkeypatch)
    broken = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    broken.write_bytes(broken.read_bytes()[:-10])
    with pytest.raises(CorruptDataError, match=r"data_batch_3: .*checksum.*data\.download=true"):
        read_torchvision(name="cifar10", root=str(tmp_path), download=False)


def test_svhn_asks_for_its_extra_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("convtrain.config.data_rules.find_spec", lambda name: None)
    line = (
        r"data\.name=svhn: is read by scipy, which is not installed; "
        r"pip install -e '\.\[svhn\]' \[set in: configs/data/svhn\.yaml\]"
    )
    with pytest.raises(ConfigError, match=f"^{line}$"):
        compose("data=svhn", "data.download=true")


def test_svhn_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    labels = np.array([10, 1] * 10).reshape(-1, 1)
    split_list = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        scipy_io.savemat(path, {"X": pixels, "y": labels})
        split_list[split] = ["", path.name, calculate_md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    splits = read_torchvision(name="svhn", root=str(tmp_path), download=False)
    assert torch.equal(
        in_memory(splits.test), torch.from_numpy(pixels.transpose(3, 2, 0, 1).copy())
    )
    assert splits.test.labels[:2].tolist() == [0, 1]


@pytest.mark.parametrize("name", torchvision.CLASSES)
def test_missing_data_names_folder_files_and_the_override(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingDataError) as raised:
        read_torchvision(name=name, root=str(tmp_path), download=False)
    message = str(raised.value)
    assert str(tmp_path) in message
    assert all(file in message for file in torchvision.checksums(name))
    assert "data.download=true" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("damage", ["truncated", "empty", "not an IDX file"])
def test_a_broken_idx_file_is_named(tmp_path: Path, damage: str) -> None:
    make_mnist(tmp_path)
    broken = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = broken.read_bytes()
    damaged = {"truncated": content[:-100], "empty": b"", "not an IDX file": b"<html>" + content}
    broken.write_bytes(damaged[damage])
    with pytest.raises(CorruptDataError) as raised:
        read_torchvision(name="mnist", root=str(tmp_path), download=False)
    assert str(broken) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    with pytest.raises(TrainingError, match=r"data=mnist: the download into .* failed"):
        read_torchvision(name="mnist", root=str(tmp_path), download=True)
