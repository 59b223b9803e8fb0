"""Time the augmentation of a batch: ``python -m benchmarks.augmentation``.

Ours augments the whole batch at once, from uint8 pixels to normalised images. Its peer is
torchvision's ``transforms.v2``, applied to one image at a time as in a Dataset, then stacked.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.paired import Result, compare, print_table
from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batches, Normalisation
from convtrain.data.images import Images

BATCH, SIDE, CLASSES, GOAL = 512, 32, 10, 0.10
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
CUTOUT = 8

CASES: dict[str, tuple[Augmentation, list[v2.Transform]]] = {
    "random crop": (Augmentation(random_crop=4), [v2.RandomCrop(SIDE, padding=4)]),
    "flip": (Augmentation(horizontal_flip=0.5), [v2.RandomHorizontalFlip(0.5)]),
    "cutout": (Augmentation(cutout=CUTOUT), []),
    "mixup": (Augmentation(mixup=0.2), []),
    "all of them": (
        Augmentation(random_crop=4, horizontal_flip=0.5, cutout=CUTOUT, mixup=0.2),
        [v2.RandomCrop(SIDE, padding=4), v2.RandomHorizontalFlip(0.5)],
    ),
}
"""By name: ours, and the peer's transforms, to which :func:`peer` adds cutout and mixup."""


def rows(pairs: int = 9) -> list[Result]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.randint(0, CLASSES, (BATCH,), generator=generator))
    results = []
    for name, (augmentation, transforms) in CASES.items():
        ratio = compare(
            ours(images, augmentation), peer(images, augmentation, transforms), pairs=pairs
        )
        what = f"batch of {BATCH}, {name}: ours / transforms.v2 image by image"
        results.append(Result(what, ratio.scaled(1000), "ms", GOAL))
    return results


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
    images: Images, augmentation: Augmentation, transforms: list[v2.Transform]
) -> Callable[[], object]:
    one = v2.Compose([
        *transforms, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
        *([v2.Lambda(cutout)] if augmentation.cutout else []),
    ])  # fmt: skip
    mix = v2.MixUp(alpha=augmentation.mixup, num_classes=CLASSES) if augmentation.mixup else None
    return partial(_one_by_one, images, one, mix)


def _one_by_one(images: Images, one: v2.Transform, mix: v2.Transform | None) -> object:
    order = torch.randperm(len(images)).tolist()
    batch = torch.stack([one(images.pixels[index]) for index in order])  # type: ignore[index]
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
