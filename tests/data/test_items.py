"""What a dataset of one's own may return for an image, and what is refused instead of guessed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from convtrain.data.items import ItemRules, read_image, read_item, read_target
from convtrain.errors import CorruptDataError

COLOUR = ItemRules([3, 8, 8], "stretch", num_classes=3)
GREY = COLOUR._replace(shape=[1, 8, 8])
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
FIRST = PIXELS.transpose(2, 0, 1)

SAME: dict[str, Callable[[], object]] = {
    "Pillow": lambda: Image.fromarray(PIXELS),
    "numpy": lambda: PIXELS,
    "tensor": lambda: torch.from_numpy(FIRST.copy()),
    "torchvision's ToImage": lambda: v2.ToImage()(Image.fromarray(PIXELS)),
    "torchvision's float tensor": lambda: v2.functional.to_dtype(
        v2.functional.pil_to_tensor(Image.fromarray(PIXELS)), torch.float32, scale=True
    ),
    "double": lambda: PIXELS / 255,
    "transposed memory": lambda: torch.from_numpy(PIXELS).permute(2, 0, 1),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME.keys())
def test_every_form_of_an_image_gives_the_same_bytes(make: Callable[[], object]) -> None:
    assert np.array_equal(read_image(make(), COLOUR), FIRST)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("shape", [[3, 4, 6], [1, 16, 12]], ids=str)
def test_arrays_are_resized_and_made_grey_as_pillow_images_are(
    shape: list[int], resize: Any
) -> None:
    rules = COLOUR._replace(shape=shape, resize=resize)
    expected = read_image(Image.fromarray(PIXELS), rules)
    assert expected.shape == tuple(shape)
    assert np.array_equal(read_image(PIXELS, rules), expected)
    assert np.array_equal(read_image(torch.from_numpy(FIRST.copy()), rules), expected)


def test_grey_alpha_and_many_channels() -> None:
    grey = PIXELS[:, :, 0]
    assert np.array_equal(read_image(grey, GREY)[0], grey)
    assert np.array_equal(read_image(torch.from_numpy(grey.copy()), GREY)[0], grey)
    assert np.array_equal(read_image(grey, COLOUR), np.stack([grey] * 3))
    clear = np.concatenate([PIXELS, np.zeros((8, 8, 1), np.uint8)], 2)
    assert (read_image(clear, COLOUR._replace(background=7)) == 7).all()
    bands = np.concatenate([PIXELS, PIXELS[:, :, :2]], 2)
    assert np.array_equal(read_image(bands, COLOUR._replace(shape=[5, 8, 8]))[3:], FIRST[:2])


def test_a_range_scales_what_eight_bits_cannot_hold() -> None:
    deep = (PIXELS.astype(np.uint16) + 1) * 16
    scaled = COLOUR._replace(value_range=[0, 4096])
    wanted = np.round(deep.transpose(2, 0, 1) * (255 / 4096))
    assert np.array_equal(read_image(deep, scaled), wanted)
    halves = np.full((8, 8, 3), 0.7, np.float32)
    assert (read_image(halves, COLOUR._replace(value_range=[0, 1])) == 178).all()  # 178.5 - eps


REFUSED = {
    "normalised": (torch.full((3, 8, 8), -1.5), r"float32 from -1\.5 .*without Normalize"),
    "between levels": (torch.full((3, 8, 8), 0.7), r"between the 256 levels.*value_range=\[0,1\]"),
    "0-255 as floats": (PIXELS.astype(np.float32), r"value_range=\[LOW,HIGH\]"),
    "not finite": (torch.full((3, 8, 8), float("nan")), "not finite"),
    "long": (torch.zeros(3, 8, 8, dtype=torch.int64), "holds int64 .*give uint8"),
    "channels last": (torch.zeros(8, 8, 3, dtype=torch.uint8), "has 8 channels and 8x3 pixels"),
    "a batch": (np.zeros((1, 8, 8, 3), np.uint8), r"shape \(1, 8, 8, 3\); expected"),
    "a path": ("a.png", "its image is a str; allowed are"),
}


@pytest.mark.parametrize(("image", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_an_image_that_would_lose_something_is_refused(image: object, reason: str) -> None:
    with pytest.raises(CorruptDataError, match=reason):
        read_image(image, COLOUR)


def test_targets_are_classes_or_vectors() -> None:
    for label in (2, np.int64(2), np.uint8(2), torch.tensor(2), torch.tensor([2]), np.array(2)):
        assert read_target(label, 3) == 2
    for vector in ([0, 1, 1], torch.tensor([0.0, 1.0, 1.0]), np.array([False, True, True])):
        found = read_target(vector, 3)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        assert found.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (3, r"its target is 3; allowed are 0 to 2"),
        (-1, r"its target is -1"),
        (1.0, r"is 1\.0, a float"),
        ("cat", r"its target cat is a str"),
        (None, r"is a NoneType"),
        ([0, 1], r"has shape \(2,\)"),
        ([0, 2.0, 0], r"leaves 0-1"),
    ],
)
def test_a_target_that_fits_no_class_is_refused(target: object, reason: str) -> None:
    with pytest.raises(CorruptDataError, match=reason):
        read_target(target, 3)


def test_an_item_is_a_pair() -> None:
    with pytest.raises(CorruptDataError, match=r"is a dict; return an image and its target"):
        read_item({"image": PIXELS}, COLOUR)
    with pytest.raises(CorruptDataError, match=r"is a tuple of 3"):
        read_item((PIXELS, 1, 2), COLOUR)
