"""Images of one's own: found, decoded, resized, divided; a bad one is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convtrain.config.folders import class_names
from convtrain.data.image_folder import load_image_folder
from convtrain.errors import CorruptDataError, MissingDataError

OPTIONS: dict[str, Any] = {
    "classes": ["cat", "dog"],
    "shape": [3, 16, 16],
    "resize": "stretch",
    "val_fraction": 0.25,
    "test_fraction": 0.25,
    "split_seed": 0,
    "memory_gib": 1.0,
    "max_pixels": 100_000,
}
COLOURS = {"cat": (250, 0, 0), "dog": (0, 0, 250)}


def fill(folder: Path, count: int, size: tuple[int, int] = (20, 30), suffix: str = "png") -> None:
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", size, colour).save(folder / name / f"{index}.{suffix}")


def test_one_folder_is_divided_and_labels_follow_the_folders(tmp_path: Path) -> None:
    fill(tmp_path, 16)
    assert class_names(tmp_path) == ["cat", "dog"]
    splits = load_image_folder(root=str(tmp_path), **OPTIONS)
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [18, 6, 8]
    for part in (splits.train, splits.val, splits.test):
        assert part.pixels.shape[1:] == (3, 16, 16)
        red = part.pixels[:, 0].float().mean((1, 2)) > 100
        assert torch.equal(red, part.labels == 0)


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    fill(tmp_path / "train", 8, suffix="jpg")
    fill(tmp_path / "test", 3, suffix="jpg")
    splits = load_image_folder(root=str(tmp_path), **OPTIONS)
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [12, 4, 6]


def test_crop_keeps_the_proportions_and_the_middle(tmp_path: Path) -> None:
    picture = np.zeros((16, 48), dtype=np.uint8)
    picture[:, 16:32] = 200
    for name in COLOURS:
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(picture).save(tmp_path / name / f"{index}.png")
    grey = {**OPTIONS, "shape": [1, 16, 16]}
    cropped = load_image_folder(root=str(tmp_path), **{**grey, "resize": "crop"})
    assert (cropped.train.pixels == 200).all()
    stretched = load_image_folder(root=str(tmp_path), **grey)
    assert (stretched.train.pixels[:, :, :, 0] == 0).all()


def test_more_than_the_budget_lives_in_a_file_with_the_same_content(tmp_path: Path) -> None:
    fill(tmp_path, 8)
    inside = load_image_folder(root=str(tmp_path), **OPTIONS)
    outside = load_image_folder(root=str(tmp_path), **{**OPTIONS, "memory_gib": 1e-9})
    assert torch.equal(inside.train.pixels, outside.train.pixels)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 4, suffix="jpg")
    broken = tmp_path / "dog" / "2.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(CorruptDataError) as raised:
        load_image_folder(root=str(tmp_path), **OPTIONS)
    assert str(broken) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_giant_image_is_refused_with_its_size(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    Image.new("RGB", (400, 300)).save(tmp_path / "cat" / "giant.png")
    with pytest.raises(CorruptDataError, match=r"giant\.png: 400x300 pixels"):
        load_image_folder(root=str(tmp_path), **OPTIONS)


def test_folders_without_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    with pytest.raises(MissingDataError, match="holds no images"):
        load_image_folder(root=str(tmp_path), **OPTIONS)
