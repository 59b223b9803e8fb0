"""Balanced epochs: each class equally often, its images in turn, resumable and dividable."""

from collections import Counter

import pytest
import torch

from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batch, Batches, Normalisation
from convtrain.data.images import Images

SIZES = {0: 60, 1: 25, 2: 7, 4: 1}  # class 3 has no image
LABELS = torch.tensor([label for label, size in SIZES.items() for _ in range(size)])
LABELS = LABELS[torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))]
PIXELS = torch.randint(0, 256, (len(LABELS), 3, 6, 6), dtype=torch.uint8)


def batches(**options: object) -> Batches:
    settings = {"batch_size": 10, "shuffle": True, "balanced": True, "seed": 3, **options}
    normalise = Normalisation([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    return Batches(Images(PIXELS, LABELS), normalise=normalise, **settings)  # type: ignore[arg-type]


def indices(found: list[Batch]) -> list[int]:
    return torch.cat([batch.indices for batch in found]).tolist()


def test_each_class_is_drawn_equally_often_and_its_images_take_turns() -> None:
    loader, total = batches(), Counter[int]()
    orders = []
    for epoch in range(9):
        loader.set_epoch(epoch)
        found = list(loader)
        order = indices(found)
        assert len(order) == len(LABELS)
        assert torch.equal(torch.cat([batch.targets for batch in found]), LABELS[order])
        of_class = Counter(LABELS[order].tolist())
        assert of_class.keys() == SIZES.keys()
        assert set(of_class.values()) <= {len(LABELS) // 4, len(LABELS) // 4 + 1}
        total.update(order)
        for label in SIZES:
            times = [total[i] for i, own in enumerate(LABELS.tolist()) if own == label]
            assert max(times) - min(times) <= 1, f"class {label} after epoch {epoch}"
        orders.append(order)
    assert len({tuple(order) for order in orders}) == 9
    assert orders[0] != sorted(orders[0], key=lambda i: LABELS[i])
    loader.set_epoch(4)
    assert indices(list(loader)) == orders[4]


@pytest.mark.parametrize("transforms", [[], [{"RandomResizedCrop": {"size": 6}}]], ids=["", "v2"])
def test_an_image_that_is_drawn_again_is_augmented_anew(transforms: list[object]) -> None:
    augmentation = Augmentation(
        random_crop=2, horizontal_flip=0.5, transforms=transforms, shape=(3, 6, 6), workers=0
    )
    found = list(batches(augmentation=augmentation))
    images = torch.cat([batch.images for batch in found])
    again = images[torch.tensor(indices(found)) == int((LABELS == 4).nonzero())]
    assert len(again) >= 20
    assert len(again.flatten(1).unique(dim=0)) > 15


@pytest.mark.parametrize("workers", [0, 2])
def test_devices_and_a_resumed_epoch_see_each_draw_once(workers: int) -> None:
    transforms = [{"RandomResizedCrop": {"size": 6}}]
    augmentation = Augmentation(transforms=transforms, shape=(3, 6, 6), workers=workers)
    alone = batches(augmentation=augmentation)
    alone.set_epoch(5)
    whole = list(alone)
    for rank in range(2):
        mine = batches(augmentation=augmentation, rank=rank, world_size=2)
        mine.load_state_dict({"epoch": 5, "position": 4})
        for batch, expected in zip(mine, whole[4:], strict=True):
            assert torch.equal(batch.indices, expected.indices[rank::2])
            assert torch.equal(batch.images, expected.images[rank::2])
        mine.close()
    alone.close()
