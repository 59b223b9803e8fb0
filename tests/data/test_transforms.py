"""Transforms of single images: torchvision's own results, whatever batch, process or rank."""

import os
import pickle
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batch, Batches, Normalisation
from convtrain.data.images import Images
from convtrain.data.randomness import derive_seed
from convtrain.data.transforms import TRANSFORMS
from convtrain.errors import ConfigError, TrainingError

SHAPE, COUNT, CLASSES, SEED = (3, 8, 8), 22, 4, 3
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
PIXELS = torch.randint(0, 256, (COUNT, *SHAPE), dtype=torch.uint8)
DECLARED: list[object] = [
    {"RandomResizedCrop": {"size": 8, "interpolation": "bicubic"}},
    "RandomHorizontalFlip",
    {
        "RandomApply": {
            "transforms": [{"ColorJitter": {"hue": 0.2}}, "RandomVerticalFlip"],
            "p": 0.7,
        }
    },
    {"RandomOrder": ["TrivialAugmentWide", "RandomAutocontrast"]},
    {"RandomErasing": {"p": 0.5, "value": 7}},
]
BY_HAND = v2.Compose([
    v2.RandomResizedCrop(8, interpolation=v2.InterpolationMode.BICUBIC),
    v2.RandomHorizontalFlip(),
    v2.RandomApply([v2.ColorJitter(hue=0.2), v2.RandomVerticalFlip()], p=0.7),
    v2.RandomOrder([v2.TrivialAugmentWide(), v2.RandomAutocontrast()]),
    v2.RandomErasing(p=0.5, value=7),
])  # fmt: skip
OWN = """
import random
import numpy as np
from torch import nn

class Noise(nn.Module):
    def forward(self, image):
        return (image + random.randrange(9) + np.random.randint(9)).clamp(0, 255)

class Broken(nn.Module):
    def forward(self, image):
        if image[0, 0, 0] == 77:
            raise KeyError("no such colour")
        return image
"""


@pytest.fixture(autouse=True)
def _own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owntransforms.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def batches(
    transforms: list[object] = DECLARED,
    *,
    workers: int = 0,
    pixels: Tensor = PIXELS,
    mixup: float = 0,
    cutmix: float = 0,
    **options: Any,
) -> Batches:
    augmentation = Augmentation(
        transforms=transforms, workers=workers, shape=SHAPE, trust=["owntransforms"],
        mixup=mixup, cutmix=cutmix, random_crop=1,
    )  # fmt: skip
    images = Images(pixels, torch.arange(COUNT) % CLASSES)
    settings = {"batch_size": 6, "shuffle": True, "seed": SEED, "classes": CLASSES, **options}
    return Batches(
        images, normalise=Normalisation(MEAN, STD), augmentation=augmentation, **settings
    )


def by_image(found: Iterator[Batch]) -> Tensor:
    """Return the images of an epoch in the order of their indices."""
    epoch = list(found)
    images, indices = (
        torch.cat([getattr(b, name) for b in epoch]) for name in ("images", "indices")
    )
    return images[indices.argsort()]


def test_an_image_is_what_torchvision_makes_of_it_after_its_own_seed() -> None:
    augmentation = Augmentation(transforms=DECLARED, shape=SHAPE)
    assert augmentation.transforms is not None
    for epoch in (0, 2):
        found = augmentation.transforms(PIXELS, range(COUNT), seed=SEED, epoch=epoch)
        for index, image in enumerate(PIXELS):
            torch.manual_seed(derive_seed(SEED, epoch, index, TRANSFORMS))
            assert torch.equal(found[index], BY_HAND(image))


def test_neither_batch_size_nor_workers_nor_a_resume_change_an_image() -> None:
    listed = [*DECLARED, "owntransforms.Noise"]
    torch.manual_seed(1)
    state = (
        torch.get_rng_state(),
        random.getstate(),
        pickle.dumps(np.random.get_state()),
    )
    expected = by_image(iter(batches(listed)))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), pickle.dumps(np.random.get_state())) == state[1:]

    loader = batches(listed, workers=2, batch_size=5)
    assert torch.equal(by_image(iter(loader)), expected)
    one_by_one = [loader.at(position) for position in range(len(loader))]
    for epoch in (3, 4, 0):  # an epoch that is left before its end leaves nothing behind
        loader.set_epoch(epoch)
        assert torch.equal(next(iter(loader)).images, loader.at(0).images)
    loader.load_state_dict({"epoch": 0, "position": 2})
    for batch, again in zip(loader, one_by_one[2:], strict=True):
        assert torch.equal(batch.images, again.images)
    loader.set_epoch(1)
    assert not torch.equal(by_image(iter(loader)), expected)
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_each_rank_makes_its_images_of_the_batch_of_one_process(workers: int) -> None:
    alone = list(batches(mixup=0.4, cutmix=1.0))
    for rank in range(2):
        loader = batches(mixup=0.4, cutmix=1.0, rank=rank, world_size=2, workers=workers)
        for whole, mine in zip(alone, loader, strict=True):
            assert torch.equal(mine.images, whole.images[rank::2])
            assert torch.equal(mine.targets, whole.targets[rank::2])
        loader.close()


def test_floats_in_0_to_1_are_normalised_and_augmented_as_bytes_are() -> None:
    to_float = {"ToDtype": {"dtype": "torch.float32", "scale": True}}
    found = {}
    either: dict[str, list[object]] = {"bytes": ["Identity"], "floats": [to_float]}
    for name, listed in either.items():
        augmentation = Augmentation(
            transforms=listed, shape=SHAPE, random_crop=1, horizontal_flip=0.5, cutout=2
        )
        (found[name],) = Batches(
            Images(PIXELS, torch.zeros(COUNT, dtype=torch.int64)),
            batch_size=COUNT, normalise=Normalisation(MEAN, STD), augmentation=augmentation,
        )  # fmt: skip
    torch.testing.assert_close(found["bytes"].images, found["floats"].images)


UNFIT: dict[str, tuple[list[object], str]] = {
    "another size": (
        [{"Resize": {"size": [9, 8]}}, "RandomHorizontalFlip"],
        "augment.transforms.0={Resize: {size: [9, 8]}}: makes images of [3, 9, 8]; the list must "
        "end with data.shape=[3, 8, 8]",
    ),
    "one channel": (["Grayscale"], "augment.transforms.0=Grayscale: makes images of [1, 8, 8]"),
    "no tensor": (["ToPILImage"], "augment.transforms.0=ToPILImage: returns a Image"),
    "floats up to 255": (
        [{"ToDtype": {"dtype": "float32"}}],
        "expected 0 to 1; write {ToDtype: {dtype: torch.float32, scale: true}}",
    ),
    "another type": (
        [{"ToDtype": {"dtype": "float64", "scale": True}}],
        "the list ends with torch.float64, expected torch.uint8, or torch.float32 in 0 to 1",
    ),
    "one type or another": (
        [{"RandomApply": [{"ToDtype": {"dtype": "float32", "scale": True}}]}],
        "the list ends with torch.",
    ),
    "a type that it does not take": (
        [{"ToDtype": {"dtype": "float32", "scale": True}}, "JPEG"],
        "augment.transforms.1=JPEG: ",
    ),
}


@pytest.mark.parametrize(("listed", "expected"), UNFIT.values(), ids=UNFIT)
def test_a_list_that_does_not_fit_the_images_is_refused_before_any_is_read(
    listed: list[object], expected: str
) -> None:
    listed = [{"JPEG": {"quality": 50}} if each == "JPEG" else each for each in listed]
    expected = expected.replace("=JPEG", "={JPEG: {quality: 50}}")
    with pytest.raises(ConfigError) as error:
        Augmentation(transforms=listed, shape=SHAPE)
    assert expected in str(error.value)


def test_a_transform_that_fails_in_a_worker_is_named_with_its_image() -> None:
    pixels = PIXELS.clone().clamp(80, 255)
    pixels[17, 0, 0, 0] = 77
    loader = batches(["Identity", "owntransforms.Broken"], workers=2, pixels=pixels)
    with pytest.raises(TrainingError) as error:
        list(loader)
    loader.close()
    assert "augment.transforms.1=owntransforms.Broken: KeyError" in str(error.value)
    assert "no such colour" in str(error.value)
    assert "image 17 of the training images, epoch 0" in str(error.value)


def test_a_worker_that_is_killed_ends_the_training_with_a_line() -> None:
    loader = batches(workers=1)
    iterator = iter(loader)
    next(iterator)
    assert loader._transformed is not None
    assert loader._transformed._pool is not None
    (worker,) = loader._transformed._pool._processes
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(TrainingError, match="a process that transforms images was killed"):
        list(iterator)
    loader.close()
