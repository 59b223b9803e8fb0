"""Batches: every image once, in an order that follows from (seed, epoch), resumable anywhere."""

import pytest
import torch
from torchvision.transforms import v2

from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batches, Normalisation
from convtrain.data.images import Images
from tests.data.resident import in_memory

IMAGES = Images(torch.randint(0, 256, (103, 3, 4, 4), dtype=torch.uint8), torch.arange(103) % 10)
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
NORMALISE = Normalisation(MEAN, STD)


def batches(**options: object) -> Batches:
    settings = {"batch_size": 10, "normalise": NORMALISE, "shuffle": True, "seed": 1, **options}
    return Batches(IMAGES, **settings)  # type: ignore[arg-type]


def seen(loader: Batches) -> list[int]:
    return [index for batch in loader for index in batch.indices.tolist()]


def test_an_epoch_has_every_image_once_and_each_epoch_its_own_order() -> None:
    loader = batches()
    first = seen(loader)
    assert sorted(first) == list(range(103))
    assert len(loader) == 11
    loader.set_epoch(1)
    second = seen(loader)
    assert sorted(second) == list(range(103))
    assert first != second
    loader.set_epoch(0)
    assert seen(loader) == first


def test_images_and_targets_belong_together() -> None:
    for batch in batches():
        assert torch.equal(batch.targets, batch.indices % 10)
        assert torch.equal(batch.images, NORMALISE(in_memory(IMAGES)[batch.indices]))


def test_normalisation_is_torchvisions() -> None:
    scaled = v2.functional.to_dtype(IMAGES.pixels, torch.float32, scale=True)
    expected = v2.functional.normalize(scaled, MEAN, STD)
    torch.testing.assert_close(NORMALISE(in_memory(IMAGES)), expected)


def test_white_is_exactly_one_without_normalisation() -> None:
    white = torch.full((1, 1, 3, 3), 255, dtype=torch.uint8)
    assert torch.equal(Normalisation([0.0], [1.0])(white), torch.ones(1, 1, 3, 3))


@pytest.mark.parametrize("position", [1, 5, 10])
def test_an_epoch_goes_on_where_its_state_was_saved(position: int) -> None:
    whole = batches(augmentation=Augmentation(random_crop=1))
    whole.set_epoch(3)
    iterator = iter(whole)
    before = [next(iterator) for _ in range(position)]
    state = whole.state_dict()
    rest = list(iterator)

    resumed = batches(augmentation=Augmentation(random_crop=1))
    resumed.load_state_dict(state)
    again = list(resumed)
    assert len(before) + len(again) == len(whole)
    for left, right in zip(rest, again, strict=True):
        assert torch.equal(left.images, right.images)
        assert torch.equal(left.indices, right.indices)
    assert len(seen(resumed)) == 103


def test_the_state_at_an_epochs_end_starts_a_whole_epoch() -> None:
    loader = batches()
    list(loader)
    resumed = batches()
    resumed.load_state_dict(loader.state_dict())
    assert len(seen(resumed)) == 103


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("limit", [1.0, 7, 0.45])
def test_accumulated_batches_of_all_devices_weigh_as_one(
    world_size: int, accumulate: int, limit: float
) -> None:
    """103 images are ten batches of ten and one of three."""
    ranks = [
        list(
            batches(
                batch_size=10, rank=rank, world_size=world_size, accumulate=accumulate,
                limit=limit, shuffle=True,
            )
        )
        for rank in range(world_size)
    ]  # fmt: skip
    used = {1.0: 11, 7: 7, 0.45: 4}[limit]
    values = torch.rand(103)
    for start in range(0, used, accumulate):
        parts = [b for mine in ranks for b in mine[start : min(start + accumulate, used)]]
        images = torch.cat([part.indices for part in parts if part.loss_weight])
        mean = sum(values[part.indices].mean() * part.loss_weight for part in parts)
        assert mean / (accumulate * world_size) == pytest.approx(values[images].mean().item())


@pytest.mark.parametrize("world_size", [2, 3])
def test_devices_share_a_batch_without_overlap_and_weigh_it_rightly(world_size: int) -> None:
    alone = list(batches(batch_size=10))
    ranks = [list(batches(batch_size=10, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({len(mine) for mine in ranks}) == 1
    for step, whole in enumerate(alone):
        parts = [mine[step] for mine in ranks]
        together = torch.cat([part.indices for part in parts]).sort().values
        assert torch.equal(together, whole.indices.sort().values)
        values = torch.rand(103)
        mean = sum(values[part.indices].mean() * part.loss_weight for part in parts) / world_size
        torch.testing.assert_close(mean, values[whole.indices].mean())


def test_drop_last_leaves_out_the_small_batch() -> None:
    loader = batches(drop_last=True)
    assert [len(batch.targets) for batch in loader] == [10] * 10
