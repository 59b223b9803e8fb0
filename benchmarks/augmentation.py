"""Time the augmentation of a batch: ``python -m benchmarks.augmentation``.

Ours augments the whole batch at once, from uint8 pixels to normalised images. Its peer is
torchvision's ``transforms.v2``, applied to one image at a time as in a Dataset, then stacked. Where
both apply the same list of transforms, an epoch of ours, with workers, is compared with one of a
DataLoader with as many.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.paired import Result, compare, print_table
from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batches, Normalisation
from convtrain.data.images import Images

BATCH, SIDE, CLASSES, GOAL = 512, 32, 10, 0.10
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
CUTOUT = 8
LISTED: list[object] = [
    "RandomHorizontalFlip",
    "TrivialAugmentWide",
    {"RandomErasing": {"p": 0.2}},
]
LISTED_BATCH, WORKERS, LISTED_GOAL = 128, 2, 1.0
EPOCHS = {32: 2_048, 64: 1_024}
"""Number of images by their side in pixels."""

CASES: dict[str, tuple[dict[str, Any], list[v2.Transform]]] = {
    "random crop": ({"random_crop": 4}, [v2.RandomCrop(SIDE, padding=4)]),
    "flip": ({"horizontal_flip": 0.5}, [v2.RandomHorizontalFlip(0.5)]),
    "cutout": ({"cutout": CUTOUT}, []),
    "mixup": ({"mixup": 0.2}, []),
    "all of them": (
        {"random_crop": 4, "horizontal_flip": 0.5, "cutout": CUTOUT, "mixup": 0.2},
        [v2.RandomCrop(SIDE, padding=4), v2.RandomHorizontalFlip(0.5)],
    ),
}
"""By name: our settings, and the peer's transforms, to which :func:`peer` adds cutout and mixup."""


def rows(pairs: int = 9) -> list[Result]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.randint(0, CLASSES, (BATCH,), generator=generator))
    results = []
    for name, (settings, transforms) in CASES.items():
        ratio = compare(
            ours(images, Augmentation(**settings)), peer(images, settings, transforms), pairs=pairs
        )
        what = f"batch of {BATCH}, {name}: ours / transforms.v2 image by image"
        results.append(Result(what, ratio.scaled(1000), "ms", GOAL))
    return results + [listed(side, count, pairs) for side, count in EPOCHS.items()]


def listed(side: int, count: int, pairs: int) -> Result:
    """Compare epochs of images that go through the same list of transforms."""
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    images = Images(pixels, torch.zeros(count, dtype=torch.int64))
    declared = [{"RandomResizedCrop": {"size": side}}, *LISTED]
    batches = Batches(
        images,
        batch_size=LISTED_BATCH,
        normalise=Normalisation(MEAN, STD),
        augmentation=Augmentation(transforms=declared, shape=(3, side, side), workers=WORKERS),
        shuffle=True,
    )
    one = v2.Compose([
        v2.RandomResizedCrop(side), v2.RandomHorizontalFlip(), v2.TrivialAugmentWide(),
        v2.RandomErasing(0.2), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ])  # fmt: skip
    stock = DataLoader(
        OneByOne(images, one), LISTED_BATCH, shuffle=True, num_workers=WORKERS,
        persistent_workers=True,
    )  # fmt: skip
    ratio = compare(lambda: list(batches), lambda: list(stock), pairs=pairs)
    batches.close()
    what = f"{count:,} images of {side}x{side}, four transforms: ours / DataLoader, both 2 workers"
    return Result(what, ratio, "s", LISTED_GOAL)


class OneByOne(Dataset[tuple[Tensor, Tensor]]):
    """Images that are transformed when they are read."""

    def __init__(self, images: Images, transform: v2.Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        assert isinstance(self.images.pixels, Tensor)
        return self.transform(self.images.pixels[index]), self.images.labels[index]


def ours(images: Images, augmentation: Augmentation) -> Callable[[], object]:
    batches = Batches(
        images,
        batch_size=BATCH,
        normalise=Normalisation(MEAN, STD),
        augmentation=augmentation,
        classes=CLASSES,
        shuffle=True,
    )
    return lambda: next(iter(batches))


def peer(
    images: Images, settings: dict[str, Any], transforms: list[v2.Transform]
) -> Callable[[], object]:
    one = v2.Compose([
        *transforms, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
        *([v2.Lambda(cutout)] if "cutout" in settings else []),
    ])  # fmt: skip
    mix = v2.MixUp(alpha=settings["mixup"], num_classes=CLASSES) if "mixup" in settings else None
    return partial(_one_by_one, images, one, mix)


def _one_by_one(images: Images, one: v2.Transform, mix: v2.Transform | None) -> object:
    order = torch.randperm(len(images)).tolist()
    assert isinstance(images.pixels, Tensor)
    batch = torch.stack([one(images.pixels[index]) for index in order])
    labels = images.labels[order]
    return mix(batch, labels) if mix else (batch, labels)


def cutout(image: Tensor) -> Tensor:
    """Blank a square around a random pixel of one image."""
    height, width = image.shape[1:]
    row, column = (int(torch.randint(size, ())) - CUTOUT // 2 for size in (height, width))
    return v2.functional.erase(
        image, max(row, 0), max(column, 0), min(row + CUTOUT, height) - max(row, 0),
        min(column + CUTOUT, width) - max(column, 0), torch.zeros(1),
    )  # fmt: skip


if __name__ == "__main__":
    print_table(rows())
