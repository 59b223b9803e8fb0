"""Images of their own sizes: stored once; cropped at random in training, else in the middle."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batches, Normalisation
from convtrain.data.crops import ATTEMPTS, RandomCrop, middle_box, random_box
from convtrain.data.decoding import Rules, decode
from convtrain.data.images import Images, Splits
from convtrain.data.sized_pixels import SizedPixels
from convtrain.data.sources.image_folder import load
from convtrain.errors import ConfigError, CorruptDataError
from convtrain.use.preprocessing import Preprocessing
from tests.conftest import compose

SIZES = [(40, 30), (30, 40), (64, 64), (20, 20), (10, 90), (200, 7), (1, 1), (33, 57)]
"""Widths and heights."""
STORE, SIDE = 32, 28
OPTIONS: dict[str, Any] = {
    "classes": ["cat", "dog"],
    "shape": [3, SIDE, SIDE],
    "resize": "crop",
    "store_size": STORE,
    "val_fraction": 0.25,
    "test_fraction": 0.25,
    "split_seed": 0,
    "memory_gib": 1.0,
    "max_pixels": 100_000,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, noise = tmp_path_factory.mktemp("sizes"), np.random.default_rng(0)
    for name in OPTIONS["classes"]:
        (root / name).mkdir()
        for index, (width, height) in enumerate(SIZES):
            levels = noise.integers(64, 192, (height, width, 3), dtype=np.uint8)
            Image.fromarray(levels).save(root / name / f"{index}.png")
    return root


def read(root: Path, **options: Any) -> Splits:
    return load(root=str(root), **{**OPTIONS, **options})


def resized(levels: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """Resize an image (channels, height, width) in floats, and round: the oracle."""
    made = F.interpolate(levels[None].double(), (height, width), mode=mode, antialias=True)[0]
    return made.round().clamp(0, 255)


def expected_middle(path: Path, mode: str = "bilinear") -> Tensor:
    levels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    height, width = levels.shape[1:]
    if (shorter := min(height, width)) > STORE:
        height, width = (round(length * STORE / shorter) for length in (height, width))
        levels = resized(levels, height, width, mode)
    side = min(max(math.floor(0.875 * min(height, width) + 0.5), 1), height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resized(levels[:, top : top + side, left : left + side], SIDE, SIDE, mode)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_an_evaluation_sees_the_middle_of_a_smaller_image(folder: Path, mode: Any) -> None:
    rules = Rules(OPTIONS["shape"], store_size=STORE, interpolation=mode)
    for path in sorted(folder.rglob("*.png")):
        found = torch.from_numpy(decode(path, rules)).double()
        # Integers are rounded after each of four passes.
        assert (found - expected_middle(path, mode)).abs().max() <= 4, path


def test_memory_cache_and_files_hold_the_same_images(folder: Path, tmp_path: Path) -> None:
    cache = {"memory_gib": 1e-9, "cache_dir": str(tmp_path)}
    ways = [read(folder), read(folder, decode="each_epoch"), read(folder, **cache)]
    assert len([*tmp_path.glob("*.uint8")]) == 1
    ways.append(read(folder, **cache))  # from the file
    for splits in ways[1:]:
        for images, others in zip(splits.images, ways[0].images, strict=True):
            assert torch.equal(images.labels, others.labels)
            every = torch.arange(len(images))
            assert torch.equal(images.read(every), others.read(every))
            for index in range(len(images)):
                assert isinstance(images.pixels, SizedPixels)
                assert isinstance(others.pixels, SizedPixels)
                assert torch.equal(images.pixels.stored(index), others.pixels.stored(index))


def test_a_cache_file_that_is_too_short_is_made_again(folder: Path, tmp_path: Path) -> None:
    cache = {"memory_gib": 1e-9, "cache_dir": str(tmp_path)}
    read(folder, **cache)
    (file,) = tmp_path.glob("*.uint8")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    read(folder, **cache)
    assert file.read_bytes() == whole


def epoch(images: Images, augmentation: Augmentation, **options: Any) -> Tensor:
    """Return the pixels of an epoch of training, in the order of the images."""
    whole = {"batch_size": 4, "seed": 5, "shuffle": True, **options}
    batches = Batches(
        images, normalise=cast(Normalisation, torch.clone), augmentation=augmentation, **whole
    )
    batches.set_epoch(2)
    found = list(batches)
    batches.close()
    return torch.cat([b.images for b in found])[torch.cat([b.indices for b in found]).argsort()]


def test_crops_depend_neither_on_workers_nor_on_batches_nor_on_the_store(
    folder: Path, tmp_path: Path
) -> None:
    def made(splits: Splits, workers: int = 0, **options: Any) -> Tensor:
        augmentation = Augmentation(
            crop_scale=[0.3, 1.0], store_size=STORE, shape=OPTIONS["shape"], workers=workers
        )
        return epoch(splits.train, augmentation, **options)

    splits = read(folder)
    first = made(splits)
    assert first.shape[1:] == (3, SIDE, SIDE)
    assert first.dtype == torch.uint8
    cached = read(folder, memory_gib=1e-9, cache_dir=str(tmp_path))
    assert torch.equal(first, made(splits, workers=2, batch_size=3))
    assert torch.equal(first, made(cached, workers=2))
    assert torch.equal(first, made(read(folder, decode="each_epoch"), workers=2))
    assert not torch.equal(first, made(splits, seed=6))
    evaluated = epoch(splits.val, Augmentation(workers=2), shuffle=False)
    assert torch.equal(evaluated, splits.val.read(torch.arange(len(splits.val))))


def test_random_boxes_have_the_distribution_of_random_resized_crop() -> None:
    image = torch.zeros(30, 40, 1)
    crop, count = RandomCrop([0.2, 0.9], [0.6, 1.5]), 4000
    ours = np.array([random_box(image, crop, draw, seed=1, epoch=0) for draw in range(count)])
    torch.manual_seed(0)
    drawn = v2.RandomResizedCrop(8, scale=(0.2, 0.9), ratio=(0.6, 1.5))
    made = [drawn.make_params([image.permute(2, 0, 1)]) for _ in range(count)]
    theirs = np.array([[m[key] for key in ("top", "left", "height", "width")] for m in made])
    for column in range(4):
        edges = np.quantile(theirs[:, column], [0.25, 0.5, 0.75])
        shares = [(ours[:, column] <= edge).mean() for edge in edges]
        expected = [(theirs[:, column] <= edge).mean() for edge in edges]
        assert np.abs(np.subtract(shares, expected)).max() < 0.04  # 3.7 standard errors


@pytest.mark.parametrize(("height", "width"), [(5, 200), (200, 5)])
def test_an_image_without_room_gives_its_middle(height: int, width: int) -> None:
    """As torchvision does after ten attempts."""
    crop = RandomCrop([0.9, 1.0], [3 / 4, 4 / 3])
    box = random_box(torch.zeros(height, width, 3), crop, 0, seed=0, epoch=0)
    assert ATTEMPTS == 10
    longest = round(5 * 4 / 3)
    expected = (5, longest) if height == 5 else (longest, 5)
    assert (box.height, box.width) == expected
    assert box.top == (height - box.height) // 2
    assert box.left == (width - box.width) // 2


@pytest.mark.parametrize(
    ("height", "width", "size", "part", "expected"),
    [
        (256, 341, (224, 224), 0.875, (16, 58, 224, 224)),
        (341, 256, (224, 224), 0.875, (58, 16, 224, 224)),
        (100, 100, (50, 100), 1.0, (25, 0, 50, 100)),
        (1, 1, (224, 224), 0.875, (0, 0, 1, 1)),
    ],
)
def test_the_middle_box(
    height: int, width: int, size: tuple[int, int], part: float, expected: tuple[int, ...]
) -> None:
    assert tuple(middle_box(height, width, size, part)) == expected


def test_transforms_get_the_crop_or_the_whole_image(folder: Path) -> None:
    images = read(folder).train
    shared = {"store_size": STORE, "shape": OPTIONS["shape"]}
    flip = {"RandomHorizontalFlip": {"p": 1.0}}
    plain = epoch(images, Augmentation(crop_scale=[0.3, 1.0], **shared))
    flipped = epoch(images, Augmentation(crop_scale=[0.3, 1.0], transforms=[flip], **shared))
    assert torch.equal(flipped, plain.flip(-1))
    middle = [{"CenterCrop": {"size": 10}}, {"Resize": {"size": SIDE}}]
    whole = epoch(images, Augmentation(crop_scale=None, transforms=middle, **shared))
    assert isinstance(images.pixels, SizedPixels)
    stored = images.pixels.stored(0).permute(2, 0, 1)
    assert torch.equal(whole[0], v2.Resize(SIDE)(v2.CenterCrop(10)(stored)))


@pytest.mark.parametrize("crop", [None, [1.0, 1.0]])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_that_writes_to_its_image_leaves_the_stored_one(
    tmp_path: Path, crop: Any, workers: int
) -> None:
    for name in OPTIONS["classes"]:
        (tmp_path / name).mkdir()
        for index in range(4):  # of the final size, so that the crop is the image itself
            Image.new("RGB", (SIDE, SIDE), (200, 150, 100)).save(tmp_path / name / f"{index}.png")
    splits = read(tmp_path)
    before = splits.train.read(torch.arange(len(splits.train)))
    erase = [{"RandomErasing": {"p": 1.0, "inplace": True}}, {"CenterCrop": {"size": SIDE}}]
    augmentation = Augmentation(
        crop_scale=crop, crop_ratio=[1.0, 1.0], transforms=erase, workers=workers,
        store_size=STORE, shape=OPTIONS["shape"],
    )  # fmt: skip
    erased = epoch(splits.train, augmentation)
    assert not torch.equal(erased, before)
    assert torch.equal(splits.train.read(torch.arange(len(splits.train))), before)


def test_all_bad_files_are_named_at_once(folder: Path, tmp_path: Path) -> None:
    for name in OPTIONS["classes"]:
        (tmp_path / name).mkdir()
        for path in (folder / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    whole = (tmp_path / "dog" / "2.png").read_bytes()
    (tmp_path / "dog" / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptDataError) as caught:
        read(tmp_path)
    assert "2 images cannot be used" in str(caught.value)
    assert "0.png" in str(caught.value)
    assert "2.png" in str(caught.value)


def test_a_turned_photograph_is_stored_upright(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(60 * 90, dtype=np.uint8).reshape(60, 90) // 2)
    exif = picture.getexif()
    exif[274] = 6
    picture.convert("RGB").save(tmp_path / "turned.jpg", exif=exif, quality=100)
    picture.convert("RGB").rotate(-90, expand=True).save(tmp_path / "upright.png")
    rules = Rules([3, 20, 20], store_size=24, eval_crop=1.0)
    turned, upright = (decode(tmp_path / name, rules) for name in ("turned.jpg", "upright.png"))
    assert np.abs(turned.astype(int) - upright).max() < 20


def test_items_of_a_dataset_are_stored_alike(folder: Path, tmp_path: Path) -> None:
    options = [
        "data=custom", "data._target_=torchvision.datasets.ImageFolder", f"data.root={folder}",
        "data.num_classes=2", f"data.shape=[3,{SIDE},{SIDE}]", f"data.store_size={STORE}",
        f"data.cache_dir={tmp_path}",
    ]  # fmt: skip
    listed = sorted(folder.rglob("*.png"))
    for memory in (1.0, 1e-9):
        config = compose(*options, f"data.memory_gib={memory}")
        splits = config.data.build()
        rules = Preprocessing(config.data).rules
        expected = {decode(path, rules).tobytes() for path in listed}
        found = {
            image.numpy().tobytes()
            for images in splits.images
            for image in images.read(torch.arange(len(images)))
        }
        assert found == expected
    assert not [*tmp_path.glob("*.uint8")]


def test_an_image_in_memory_is_prepared_as_a_file(folder: Path) -> None:
    config = compose(
        "data=image_folder", f"data.root={folder}", "data.classes=[cat,dog]",
        f"data.shape=[3,{SIDE},{SIDE}]", f"data.store_size={STORE}",
    )  # fmt: skip
    prepared = Preprocessing(config.data)
    for path in folder.rglob("*.png"):
        expected = torch.from_numpy(prepared.from_file(path))
        assert torch.equal(prepared.from_image(Image.open(path))[0], expected)


def test_an_image_that_a_balanced_epoch_draws_again_is_cropped_anew(folder: Path) -> None:
    pixels = read(folder, test_fraction=0.1).train.pixels
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    labels[0] = 1  # half of the draws are of one image
    crop = Augmentation(crop_scale=[0.3, 0.9], store_size=STORE, shape=OPTIONS["shape"], workers=0)
    drawn = epoch(Images(pixels, labels), crop, balanced=True)[: len(pixels) // 2]
    assert len(drawn.flatten(1).unique(dim=0)) == len(drawn) >= 5


def test_normalisation_follows(folder: Path) -> None:
    images = read(folder).val
    batches = Batches(images, 4, Normalisation([0.5] * 3, [0.25] * 3), Augmentation(workers=0))
    (batch, *_) = batches
    assert torch.allclose(
        batch.images, (images.read(torch.arange(4)) / 255 - 0.5) / 0.25, atol=1e-6
    )


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["data.eval_crop=0.5"], "data.eval_crop=0.5: is about images of their own sizes"),
        (["data.decode=each_epoch"], "data.decode=each_epoch: is about images of their own"),
        (["augment.crop_scale=[0.5,1]"], "augment.crop_scale=[0.5, 1"),
        (["data.store_size=9"], "data.store_size=9: is less than the shorter side of data.shape=["),
        (["data.store_size=9", "data.resize=stretch"], "data.resize=stretch: changes the prop"),
        (["data.store_size=9", "augment.crop_ratio=[2,1]"], "augment.crop_ratio=[2"),
        (
            ["data.store_size=9", "augment.transforms=[{RandomResizedCrop:{size:8}}]"],
            "type augment.crop_scale=null",
        ),
    ],
)
def test_keys_that_contradict_are_refused(folder: Path, typed: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("data=image_folder", f"data.root={folder}", *typed)
    assert line in str(caught.value)
