"""Datasets of one's own: read once, divided, with the same bits however they are read."""

import pickle
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from convtrain.data.images import Images, Splits
from convtrain.data.pixel_file import PixelFile
from convtrain.data.sources.custom import load
from convtrain.errors import ConfigError, ConvtrainError, CorruptDataError
from tests.data.resident import in_memory

OPTIONS: dict[str, Any] = {
    "num_classes": 3, "shape": [1, 4, 4], "resize": "stretch", "background": 255,
    "value_range": None, "classes": None, "val_fraction": 0.25, "test_fraction": 0.2,
    "split_seed": 0, "memory_gib": 1.0, "read_workers": 0, "cache_dir": None, "cache_gib": 1.0,
}  # fmt: skip


class Numbered(Dataset[Any]):
    """The pixels of an image are its index, and its class is the index modulo 3."""

    def __init__(self, count: int, change: Callable[[int, Any, Any], Any] | None = None) -> None:
        self.count, self.change = count, change

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        item = torch.full((1, 4, 4), index, dtype=torch.uint8), index % 3
        return item if self.change is None else self.change(index, *item)


class Named(Numbered):
    classes = ("ant", "bee", "cat")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[int]:
        yield 1


def _same(made: object) -> object:
    return made


def make(made: object, **changed: Any) -> Splits:
    """Load one dataset, or what a function returns; or those of ``data.train`` and so on."""
    if isinstance(made, dict) and any("." in name for name in made):
        makers = {name: partial(_same, dataset) for name, dataset in made.items()}
    else:
        makers = {"data._target_=mine.Data": partial(_same, made)}
    return load(makers, **{**OPTIONS, **changed})


def indices(images: Images) -> list[int]:
    pixels = images.read(torch.arange(len(images)))
    assert torch.equal(images.labels, pixels[:, 0, 0, 0].long() % 3)
    assert (pixels.flatten(1) == pixels[:, 0, 0, :1]).all()
    return pixels[:, 0, 0, 0].tolist()


def test_one_dataset_is_divided_in_the_proportions_of_its_classes() -> None:
    splits = make(Numbered(60))
    parts = [indices(images) for images in splits.images]
    assert sorted(i for part in parts for i in part) == list(range(60))
    assert [[sum(i % 3 == c for i in part) for c in range(3)] for part in parts] == [
        [12, 12, 12], [4, 4, 4], [4, 4, 4],
    ]  # fmt: skip
    assert [indices(images) for images in make(Numbered(60)).images] == parts
    assert [indices(images) for images in make(Numbered(60), split_seed=1).images] != parts


GIVEN: dict[str, tuple[object, list[int], str]] = {
    "train and test": (
        {"data.train._target_=mine": Numbered(60), "data.test._target_=mine": Numbered(9)},
        [45, 15, 9], "test",
    ),
    "train and val": ((Numbered(60), Numbered(12)), [60, 12, 12], "val"),
    "without val": ((Numbered(60), None, Numbered(12)), [45, 15, 12], "test"),
    "all": ({"test": Numbered(3), "train": Numbered(60), "val": Numbered(12)}, [60, 12, 3], "test"),
}  # fmt: skip


@pytest.mark.parametrize(("made", "sizes", "tested"), GIVEN.values(), ids=GIVEN.keys())
def test_what_is_given_is_kept_and_what_is_missing_is_split_off(
    made: object, sizes: list[int], tested: str
) -> None:
    splits = make(made)
    assert [len(images) for images in splits.images] == sizes
    assert splits.tested == tested
    assert sorted(indices(splits.train) + indices(splits.val) * (sizes[0] == 45))[-1] == 59


def noisy(index: int, image: torch.Tensor, label: int) -> Any:
    drawn = random.randrange(9) + np.random.randint(9) + int(torch.randint(9, ()))
    return image + drawn, label


def test_the_bits_depend_on_neither_workers_nor_memory_nor_random_numbers_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    states = (
        torch.get_rng_state(),
        random.getstate(),
        pickle.dumps(np.random.get_state()),
    )
    first = make(Numbered(60, noisy))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert pickle.dumps(np.random.get_state()) == states[2]
    assert "item 0 is another image each time" in caplog.text
    caplog.clear()
    torch.manual_seed(6)
    monkeypatch.setattr("convtrain.data.reading.MAX_BLOCK", 7)
    for other in (
        make(Numbered(60, noisy), read_workers=2),
        make(Numbered(60, noisy), memory_gib=1e-9, cache_dir=str(tmp_path)),
    ):
        for expected, found in zip(first.images, other.images, strict=True):
            assert torch.equal(found.read(torch.arange(len(found))), in_memory(expected))
            assert torch.equal(found.labels, expected.labels)
    assert isinstance(other.train.pixels, PixelFile)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    make(Numbered(60))
    assert caplog.text.count("another image") == 2


def test_the_same_index_of_another_split_draws_other_numbers() -> None:
    splits = make((Numbered(60, noisy), Numbered(60, noisy), Numbered(60, noisy)))
    train, val, test = (in_memory(images)[:, 0, 0, 0].tolist() for images in splits.images)
    assert train != val != test != train


def test_names_are_those_of_the_dataset_unless_they_are_configured() -> None:
    assert make(Named(30)).classes == ["ant", "bee", "cat"]
    assert make(Named(30), classes=["a", "b", "c"]).classes is None
    with pytest.raises(ConfigError, match=r"data\.num_classes=4: .* has 3 classes, ant, bee, cat"):
        make(Named(30), num_classes=4)


@pytest.mark.parametrize("split_seed", range(5))
def test_vectors_are_divided_by_their_rarest_label_and_kept(split_seed: int) -> None:
    def several(index: int, image: torch.Tensor, label: int) -> Any:
        return image, [index % 2, index % 10 == 1, 1.0]

    splits = make(Numbered(40, several), split_seed=split_seed)
    # 4 images have the second label, 16 the first as their rarest, and 20 the third alone.
    assert [len(images) for images in splits.images] == [24, 8, 8]
    assert [images.labels.sum(0).tolist() for images in splits.images] == [
        [12, 2, 24], [4, 1, 8], [4, 1, 8],
    ]  # fmt: skip
    wanted = [[i % 2, i % 10 == 1, 1.0] for i in in_memory(splits.test)[:, 0, 0, 0].tolist()]
    assert torch.equal(splits.test.labels, torch.tensor(wanted))


def at_7(change: Callable[[Any, Any], Any]) -> Numbered:
    return Numbered(30, lambda index, *item: change(*item) if index == 7 else item)


WRONG: dict[str, tuple[object, str, type[ConvtrainError]]] = {
    "an exception": (
        at_7(lambda image, _: image[9]),
        "item 7 of 30: cannot be read: IndexError",
        CorruptDataError,
    ),
    "an exit": (
        at_7(lambda *_: sys.exit(3)),
        "item 7 of 30: cannot be read: Sys",
        CorruptDataError,
    ),
    "a list of datasets": (
        [Numbered(3), Numbered(3)],
        r"returned a list of 2 datasets; return a tuple \(train, val",
        ConfigError,
    ),
    "a label": (
        at_7(lambda image, _: (image, 3)),
        "item 7 of 30: its target is 3; allowed are 0 to 2",
        CorruptDataError,
    ),
    "channels": (
        at_7(lambda image, _: (image.expand(2, 4, 4), 0)),
        "item 7 of 30: its image has 2 channels",
        CorruptDataError,
    ),
    "kinds of targets": (
        at_7(lambda image, _: (image, [0, 1, 1])),
        r"item 0 is the class 0, that of item 7 a vector \[0\.0, 1\.0, 1\.0\]",
        CorruptDataError,
    ),
    "a stream": (Stream(), "is an IterableDataset", ConfigError),
    "no dataset": (5, "int is no map-style dataset", ConfigError),
    "nothing": (Numbered(0), "has no items", ConfigError),
    "another split": ({"training": Numbered(3)}, "returned training; return train", ConfigError),
    "no training": ((None, Numbered(3)), "returned no training dataset", ConfigError),
}


@pytest.mark.parametrize(("made", "reason", "kind"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_mistake_is_a_line_that_names_dataset_and_item(
    made: object, reason: str, kind: type[ConvtrainError], workers: int
) -> None:
    with pytest.raises(kind, match=reason) as raised:
        make(made, read_workers=workers)
    assert str(raised.value).startswith("data._target_=mine.Data")
    assert len(str(raised.value).splitlines()) == 1
