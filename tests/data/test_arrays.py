"""A file of arrays: read by the rules of its format, or refused in one line."""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from convtrain.config.array_file import read_array_file
from convtrain.data.images import Splits
from convtrain.data.sources import custom
from convtrain.data.sources.arrays import datasets_of
from convtrain.errors import ConfigError, ConvtrainError
from tests.conftest import compose
from tests.data.resident import in_memory

Named = Mapping[str, Any]  # of arrays

DRAW = np.random.default_rng(0)
COLOUR = DRAW.integers(0, 256, (30, 8, 9, 3), dtype=np.uint8)  # N, height, width, channels
GREY = COLOUR[..., 0]
LABELS = np.arange(30) % 3
SEVERAL = np.stack([LABELS == 0, LABELS != 1, LABELS > 0, np.arange(30) % 2 == 0], 1)
MEDMNIST: Named = {
    f"{split}_{what}": (COLOUR if what == "images" else LABELS[:, None].astype(np.uint8))[start:end]
    for split, start, end in (("train", 0, 18), ("val", 18, 24), ("test", 24, 30))
    for what in ("images", "labels")
}


def write(path: Path, named: Named) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **named)
    else:
        save_file({name: np.ascontiguousarray(value) for name, value in named.items()}, path)
    return path


def config(file: Path, *overrides: str) -> Any:
    return compose("data=arrays", f"data.file={file}", "network=lenet", *overrides)


def of_safetensors(named: Named) -> Named:
    return {n: np.moveaxis(a, 3, 1) if a.ndim == 4 else a for n, a in named.items()}


def load(file: Path, **changed: Any) -> Splits:
    found = read_array_file(str(file))
    options = {
        "num_classes": found.classes, "classes": None, "shape": found.shape, "resize": "crop",
        "val_fraction": 0.1, "test_fraction": 0.2, "split_seed": 0, "memory_gib": 1.0,
        "background": 255, "value_range": None, "read_workers": 0, "cache_dir": None,
        "cache_gib": 1.0, **changed,
    }  # fmt: skip
    return custom.load({found.where: lambda: datasets_of(str(file))}, **options)


@pytest.mark.parametrize("form", ["npz", "compressed", "safetensors"])
def test_the_splits_of_medmnist(tmp_path: Path, form: str) -> None:
    if form == "safetensors":
        file = write(tmp_path / "a.safetensors", of_safetensors(MEDMNIST))
    else:
        file = tmp_path / "a.NPZ"
        with file.open("wb") as opened:
            (np.savez if form == "npz" else np.savez_compressed)(opened, **MEDMNIST)
    data = config(file).data
    assert (data.shape, data.num_classes, data.classes) == ([3, 8, 9], 3, None)
    assert (data.mean, data.std) == ([0.5] * 3, [0.25] * 3)
    splits = data.build()
    parts = (slice(0, 18), slice(18, 24), slice(24, 30))
    for images, part in zip(splits.images, parts, strict=True):
        assert torch.equal(images.pixels, torch.from_numpy(COLOUR[part]).permute(0, 3, 1, 2))
        assert torch.equal(images.labels, torch.from_numpy(LABELS[part]))


NAMED: dict[str, tuple[list[str], tuple[int, int, int], str]] = {
    "alone": (["images", "labels"], (21, 3, 6), "test"),
    "of Keras": (["x_train", "y_train", "x_test", "y_test"], (27, 3, 30), "test"),
    "with validation alone": (
        ["train_images", "train_labels", "valid_images", "valid_labels"], (30, 30, 30), "val",
    ),
    "beside another array": (["images", "labels", "names"], (21, 3, 6), "test"),
    "test beside no split": (["images", "labels", "test_x", "test_y"], (27, 3, 30), "test"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "sizes", "tested"), NAMED.values(), ids=NAMED)
def test_the_names_of_arrays(
    tmp_path: Path, names: list[str], sizes: tuple[int, int, int], tested: str
) -> None:
    is_image = ("images", "x", "x_train", "x_test", "test_x")
    made = {n: COLOUR if n.endswith("images") or n in is_image else LABELS for n in names}
    splits = load(write(tmp_path / "a.npz", made))
    assert tuple(map(len, splits.images)) == sizes
    assert splits.tested == tested


DTYPES: dict[str, tuple[Callable[[], np.ndarray], list[int] | None]] = {
    "grey levels": (lambda: GREY, None),
    "a channel": (lambda: GREY[..., None], None),
    "levels divided by 255": (lambda: (GREY / 255).astype(np.float32), None),
    "16 bits by rule": (lambda: GREY.astype(">u2") * 257, [0, 65535]),
}


@pytest.mark.parametrize(("make", "value_range"), DTYPES.values(), ids=DTYPES)
def test_other_dtypes_follow_the_rules_of_items(
    tmp_path: Path, make: Callable[[], np.ndarray], value_range: list[int] | None
) -> None:
    file = write(tmp_path / "a.npz", {"images": make(), "labels": LABELS})
    splits = load(file, value_range=value_range)
    levels = torch.cat([in_memory(images) for images in splits.images])
    assert levels.shape == (30, 1, 8, 9)
    assert sorted(levels.flatten(1).tolist()) == sorted(GREY.reshape(30, -1).tolist())


@pytest.mark.parametrize("dtype", ["u1", "i8", "?", "f4"])
def test_any_number_of_labels(tmp_path: Path, dtype: str) -> None:
    file = write(tmp_path / "a.npz", {"images": COLOUR, "labels": SEVERAL.astype(dtype)})
    images = load(file).train
    rows = [
        np.flatnonzero((pixels.numpy() == GREY).all((1, 2)))[0]
        for pixels in in_memory(images)[:, 0]
    ]
    assert torch.equal(images.labels, torch.from_numpy(SEVERAL[rows].astype(np.float32)))


def test_an_image_of_another_size_is_resized_and_its_channels_converted(tmp_path: Path) -> None:
    images = load(write(tmp_path / "a.npz", MEDMNIST), shape=[1, 6, 6]).train
    assert images.pixels.shape == (18, 1, 6, 6)


FIRST = np.moveaxis(COLOUR, 3, 1)
WRONG: dict[str, tuple[str, Named, str]] = {
    "channels first in npz": (
        "npz", {"images": FIRST, "labels": LABELS},
        "images u1 (30, 3, 8, 9): the order in .npz is (N, height, width, channels), so that these "
        "would have 9 channels; write numpy.moveaxis(images, 1, 3)",
    ),
    "channels last in safetensors": (
        "safetensors", {"images": COLOUR, "labels": LABELS}, "write images.permute(0, 3, 1, 2)",
    ),
    "rows of pixels": (
        "npz", {"images": GREY.reshape(30, -1), "labels": LABELS}, "expected (N, height, width) or",
    ),
    "complex images": ("npz", {"images": GREY * 1j, "labels": LABELS}, "c16 (30, 8, 9) are no ima"),
    "names as labels": (
        "npz", {"images": GREY, "labels": LABELS.astype(str)}, "expected integers, (N) or (N, 1),",
    ),
    "floats as classes": ("npz", {"images": GREY, "labels": LABELS / 1}, "labels f8 (30,): expect"),
    "fewer labels": (
        "npz", {"images": GREY, "labels": LABELS[:9]}, "labels i8 (9,) must have the same num",
    ),
    "no labels": ("npz", {"images": GREY}, "has images and no train_labels beside it; expected "),
    "no images": ("npz", {"a": GREY, "b": GREY}, "holds a, b; expected images and labels, or "),
    "only test": ("npz", {"test_images": GREY, "test_labels": LABELS}, "expected images and label"),
    "two of a kind": (
        "npz", {"images": GREY, "labels": LABELS, "x_train": GREY},
        "images and x_train are both train images; keep one",
    ),
    "labels below 0": ("npz", {"images": GREY, "labels": LABELS - 1}, "a label is -1; the classes"),
    "other kinds of labels": (
        "npz", {"train_images": GREY, "train_labels": LABELS, "test_x": GREY, "test_y": SEVERAL},
        "of different kinds: train_labels i8 (30,), test_y b1 (30, 4)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("form", "named", "line"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_file_is_one_line(
    tmp_path: Path, form: str, named: Named, line: str
) -> None:
    file = write(tmp_path / f"a.{form}", named)
    with pytest.raises(ConfigError) as raised:
        read_array_file(str(file))
    assert len(raised.value.lines) == 1
    assert line in str(raised.value)


MISTAKES: dict[str, tuple[Named, tuple[str, ...], str]] = {
    "channels first": (
        {"images": FIRST, "labels": LABELS}, (),
        "data.file=FILE: images u1 (30, 3, 8, 9): the order in .npz is",
    ),
    "labels from 1": (
        {"images": GREY, "labels": LABELS + 1}, (),
        "data.file=FILE: no image has the label 0, of 0 to 3; type data.num_classes=4 to accept it",
    ),
    "too few classes": (
        {"images": GREY, "labels": LABELS}, ("data.num_classes=2",),
        "data.num_classes=2: data.file=FILE has labels up to 2; give 3 classes",
    ),
    "other channels": (
        {"images": np.zeros((30, 8, 9, 7)), "labels": LABELS}, ("data.shape=[3,8,9]",),
        "data.shape=[3, 8, 9]: the images of data.file=FILE have 7 channels; type data.shape=[7,",
    ),
    "one label": (
        {"images": GREY, "labels": SEVERAL}, (),
        "loss=cross_entropy: expects one class an image, and the images of data=arrays have any",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("named", "typed", "line"), MISTAKES.values(), ids=MISTAKES)
def test_the_check_names_a_mistake_before_images_are_read(
    tmp_path: Path, named: Named, typed: tuple[str, ...], line: str
) -> None:
    file = write(tmp_path / "a.npz", named)
    with pytest.raises(ConfigError) as raised:
        config(file, *typed)
    assert len(raised.value.lines) == 1
    assert line in str(raised.value).replace(str(file), "FILE")


class Harmful:
    def __reduce__(self) -> Any:
        return exit, ()


def test_damaged_foreign_and_harmful_files_are_one_line(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.npz", MEDMNIST).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-50])
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Harmful()))
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("images.npy", b"text, and more than eight bytes of it")
    objects = np.array([Harmful()] * 30, dtype=object)
    np.savez(tmp_path / "objects.npz", images=GREY, labels=objects)
    (tmp_path / "a.h5").touch()
    for name, words in {
        "cut.npz": "cannot be read: ", "pickle.npz": "cannot be read: ",
        "text.npz": "cannot be read: images is no array of numpy",
        "objects.npz": "labels O (30,): expected integers",
        "a.h5": "is neither .npz nor .safetensors; write one with numpy.savez(",
        "none.npz": "No such file or directory; set data.file=",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError) as raised:
            read_array_file(str(tmp_path / name))
        assert str(raised.value).startswith(f"data.file={tmp_path / name}")
        assert words in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1


def test_damaged_bytes_are_refused_in_one_line_or_are_still_arrays(tmp_path: Path) -> None:
    for form, named in (("npz", MEDMNIST), ("safetensors", of_safetensors(MEDMNIST))):
        whole = write(tmp_path / f"whole.{form}", named).read_bytes()
        for number in range(60):
            damaged = bytearray(whole)
            for place in DRAW.integers(0, 600, 3):
                damaged[place] = DRAW.integers(256)
            file = tmp_path / f"{number}.{form}"
            file.write_bytes(damaged)
            try:
                load(file)
            except ConvtrainError as error:
                assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_an_image_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    images = (GREY / 255).astype(np.float32)
    images[7] += 1
    file = write(tmp_path / "a.npz", {"images": images, "labels": LABELS})
    with pytest.raises(ConvtrainError, match=r"a.npz \(train\): item 7 of 30: its image holds f"):
        load(file)
