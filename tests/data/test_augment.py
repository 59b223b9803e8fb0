"""Augmentation against a plain loop over images, and against what each operation promises."""

from functools import partial

import torch

from convtrain.data.augment import (
    OPERATIONS,
    Augmentation,
    Draws,
    cutout_,
    horizontal_flip,
    random_crop,
)

PIXELS = torch.randint(1, 256, (400, 3, 8, 6), dtype=torch.uint8)
INDICES = torch.arange(400)
NUMBERS = {name: number for row in OPERATIONS.values() for name, number in row.draws.items()}


def test_random_crop_is_a_window_of_the_padded_image_and_reaches_every_place() -> None:
    draw = Draws(INDICES, 1, 0, NUMBERS)
    cropped = random_crop(PIXELS, 2, draw)
    rows, columns = (draw("crop row") * 5).long(), (draw("crop column") * 5).long()
    padded = torch.zeros(400, 3, 12, 10, dtype=torch.uint8)
    padded[:, :, 2:-2, 2:-2] = PIXELS
    for n in range(400):
        window = padded[n, :, rows[n] : rows[n] + 8, columns[n] : columns[n] + 6]
        assert torch.equal(cropped[n], window)
    places = torch.bincount(rows * 5 + columns, minlength=25)
    assert (places > 0).all()


def test_flip_mirrors_about_the_given_part_of_the_images() -> None:
    flipped = horizontal_flip(PIXELS, 0.3, Draws(INDICES, 1, 0, NUMBERS))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, PIXELS, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(flipped, PIXELS, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 0.2 < sum(mirrored) / 400 < 0.4


def test_cutout_blanks_one_square_around_a_pixel() -> None:
    blanked = cutout_(torch.ones(400, 3, 8, 6), 3, Draws(INDICES, 1, 0, NUMBERS)) == 0
    assert (blanked[:, 0] == blanked[:, 1]).all()
    areas = blanked[:, 0].sum((1, 2))
    assert set(areas.tolist()) == {4, 6, 9}
    assert (areas == 9).float().mean() > 0.3


def test_what_happens_to_an_image_does_not_depend_on_its_batch() -> None:
    augmentation = partial(
        Augmentation(random_crop=2, horizontal_flip=0.5), seed=3, normalise=torch.clone
    )
    together = augmentation(PIXELS, INDICES, epoch=4)
    order = torch.randperm(400)
    assert torch.equal(together[order], augmentation(PIXELS[order], order, epoch=4))
    assert not torch.equal(together, augmentation(PIXELS, INDICES, epoch=5))
