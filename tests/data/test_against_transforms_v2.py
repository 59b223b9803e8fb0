"""A batch augmented at once has the distribution of images augmented one by one by torchvision."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from scipy.stats import chi2_contingency, ks_2samp
from torch import Tensor
from torchvision.transforms import v2

from convtrain.data.augment import CUTMIX, Augmentation, mixup_weight
from convtrain.data.batches import Batch, Batches, Normalisation
from convtrain.data.images import Images
from convtrain.data.randomness import derive_seed

SIDE, PADDING, TIMES = 6, 2, 3000
UNLIKELY = 1e-4  # p-values below which two samples count as of different distributions
IMAGE = torch.arange(1, SIDE * SIDE + 1, dtype=torch.uint8).view(1, SIDE, SIDE)


def same_distribution(ours: Counter[bytes], theirs: Counter[bytes]) -> bool:
    assert set(ours) == set(theirs), "one of them reaches what the other never does"
    outcomes = sorted(ours)
    table = [[counted[outcome] for outcome in outcomes] for counted in (ours, theirs)]
    return chi2_contingency(table).pvalue > UNLIKELY


def counted(images: Tensor) -> Counter[bytes]:
    return Counter(image.numpy().tobytes() for image in images)


def augmented(augmentation: Augmentation, times: int) -> Tensor:
    images = IMAGE.expand(times, 1, SIDE, SIDE).contiguous()
    return augmentation(images, torch.arange(times), seed=5, epoch=2, normalise=torch.clone)


def one_by_one(transform: v2.Transform, times: int) -> Tensor:
    torch.manual_seed(0)
    return torch.stack([transform(IMAGE) for _ in range(times)])


@pytest.mark.parametrize(
    ("augmentation", "transform"),
    [
        (Augmentation(random_crop=PADDING), v2.RandomCrop(SIDE, padding=PADDING)),
        (
            Augmentation(random_crop=PADDING, padding_mode="reflect"),
            v2.RandomCrop(SIDE, padding=PADDING, padding_mode="reflect"),
        ),
        (Augmentation(horizontal_flip=0.3), v2.RandomHorizontalFlip(0.3)),
        (
            Augmentation(random_crop=1, horizontal_flip=0.5),
            v2.Compose([v2.RandomCrop(SIDE, padding=1), v2.RandomHorizontalFlip(0.5)]),
        ),
    ],
    ids=["crop", "crop of reflections", "flip", "crop and flip"],
)
def test_pixels_move_as_often_to_each_place(
    augmentation: Augmentation, transform: v2.Transform
) -> None:
    ours = counted(augmented(augmentation, 10 * TIMES))
    assert same_distribution(ours, counted(one_by_one(transform, TIMES)))


def test_the_test_would_see_another_distribution() -> None:
    ours = counted(augmented(Augmentation(horizontal_flip=0.25), 10 * TIMES))
    assert not same_distribution(ours, counted(one_by_one(v2.RandomHorizontalFlip(0.4), TIMES)))


def test_mixup_mixes_the_same_neighbours_by_weights_of_the_same_distribution() -> None:
    count, classes, alpha = 5, 5, 0.4
    pixels = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8)
    labels = torch.arange(count)
    normalise = Normalisation([0.5] * 3, [0.5] * 3)
    batches = Batches(
        Images(pixels, labels),
        batch_size=count,
        normalise=normalise,
        augmentation=Augmentation(mixup=alpha),
        classes=classes,
    )
    (batch,) = batches
    weight = mixup_weight(alpha, 0, 0, 0)
    plain = normalise(pixels)
    mix = v2.MixUp(alpha=alpha, num_classes=classes)
    parameters = {"lam": weight, "labels": labels, "batch_size": count}
    expected = [mix.transform(each, parameters) for each in (plain, labels)]
    torch.testing.assert_close(batch.images, expected[0])
    torch.testing.assert_close(batch.targets, expected[1])

    torch.manual_seed(0)
    theirs = [mix.make_params([plain, labels])["lam"] for _ in range(TIMES)]
    ours = [mixup_weight(alpha, 1, 0, index) for index in range(TIMES)]
    assert ks_2samp(ours, theirs).pvalue > UNLIKELY


def mixed(epoch: int, **alphas: Any) -> Batch:
    """Return an epoch's only batch, of five images of five classes."""
    pixels = torch.arange(5 * 3 * 9 * 7).view(5, 3, 9, 7).to(torch.uint8)
    loader = Batches(
        Images(pixels, torch.arange(5)), batch_size=5, classes=5, seed=4,
        normalise=Normalisation([0.5] * 3, [0.5] * 3), augmentation=Augmentation(**alphas),
    )  # fmt: skip
    loader.set_epoch(epoch)
    (batch,) = loader
    return batch


def test_cutmix_replaces_torchvisions_box_by_the_same_neighbours() -> None:
    mix, areas = v2.CutMix(alpha=0.7, num_classes=5), set()
    for epoch in range(8):
        plain, batch = mixed(epoch), mixed(epoch, cutmix=0.7)
        draw = random.Random(derive_seed(4, epoch, 0, CUTMIX))
        weight, row, column = draw.betavariate(0.7, 0.7), draw.randrange(9), draw.randrange(7)
        with (
            patch.object(mix, "_dist", SimpleNamespace(sample=lambda _, w=weight: w)),
            patch("torch.randint", side_effect=[torch.tensor([column]), torch.tensor([row])]),
        ):
            parameters = mix.make_params([plain.images])
        parameters |= {"labels": plain.targets, "batch_size": 5}
        expected = [mix.transform(each, parameters) for each in (plain.images, plain.targets)]
        assert torch.equal(batch.images, expected[0])
        torch.testing.assert_close(batch.targets, expected[1])
        areas.add(parameters["lam_adjusted"])
    assert len(areas) > 4


def test_with_mixup_and_cutmix_a_batch_takes_one_of_them() -> None:
    chosen = Counter[str]()
    for epoch in range(40):
        both = mixed(epoch, mixup=0.4, cutmix=1.0)
        alone = {"mixup": mixed(epoch, mixup=0.4), "cutmix": mixed(epoch, cutmix=1.0)}
        (name,) = (n for n, batch in alone.items() if torch.equal(both.images, batch.images))
        assert torch.equal(both.targets, alone[name].targets)
        chosen[name] += 1
    assert 10 < chosen["mixup"] < 30
