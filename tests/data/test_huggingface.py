"""Folders of parquet files and saved datasets, read by the package ``datasets``."""

import logging
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from convtrain.data.images import Images, Splits
from convtrain.errors import ConfigError, CorruptDataError, MissingDataError, TrainingError
from tests.conftest import compose
from tests.training.test_resume import SMALL, Whole

datasets = pytest.importorskip("datasets")
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def table(count: int, labels: Any, target: Any) -> Any:
    """Return grey images whose level is their index; ``target`` maps an index to its label."""
    images = [Image.new("L", (4, 4), index) for index in range(count)]
    columns = {"id": list(range(count)), "img": images, "y": [target(i) for i in range(count)]}
    kinds = {"id": datasets.Value("int64"), "img": datasets.Image(), "y": labels}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def classes(count: int) -> Any:
    return table(count, datasets.ClassLabel(names=NAMES), lambda index: index % 3)


def write(folder: Path, **splits: Any) -> str:
    (folder / "data").mkdir(parents=True)  # where any name of a split is allowed
    for split, content in splits.items():
        content.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return f"data.name={folder}"


def read(*typed: str) -> Splits:
    config = compose("data=huggingface", "data.num_classes=3", "data.shape=[1,4,4]", *typed)
    splits = config.data.build()
    assert isinstance(splits, Splits)
    return splits


def indices(images: Images) -> list[int]:
    levels = images.read(torch.arange(len(images)))[:, 0, 0, 0].tolist()
    return [int(level) for level in levels]


def test_splits_classes_and_images_are_those_of_the_files(tmp_path: Path) -> None:
    splits = read(write(tmp_path / "d", train=classes(30), validation=classes(9), test=classes(6)))
    assert [indices(images) for images in splits.images] == [[*range(n)] for n in (30, 9, 6)]
    assert all(
        images.labels.tolist() == [i % 3 for i in indices(images)] for images in splits.images
    )
    assert splits.classes == NAMES


def test_one_split_is_divided_whatever_its_name_is_and_saved_datasets_are_read(
    tmp_path: Path,
) -> None:
    first = read(write(tmp_path / "d", everything=classes(30)))
    assert sorted(chain.from_iterable(map(indices, first.images))) == [*range(30)]
    datasets.DatasetDict({"extra": classes(30)}).save_to_disk(tmp_path / "saved")
    other = read(f"data.name={tmp_path / 'saved'}")
    assert [indices(images) for images in other.images] == [indices(i) for i in first.images]


def test_several_labels_become_a_vector(tmp_path: Path) -> None:
    several = datasets.Sequence(datasets.ClassLabel(names=NAMES))
    splits = read(write(tmp_path / "d", train=table(12, several, lambda i: [0, 2][: i % 3])))
    wanted = [[[0, 0, 0], [1, 0, 0], [1, 0, 1]][i % 3] for i in indices(splits.train)]
    assert splits.train.labels.tolist() == wanted
    for label, told in ((-1, "is -1; allowed are 0 to 2"), (None, "null is a NoneType")):
        named = write(tmp_path / str(label), train=table(12, several, lambda i, x=label: [x, 1]))
        with pytest.raises(CorruptDataError, match=f"item 0 of 12: its target {told}"):
            read(named)


def test_a_split_without_labels_and_splits_of_other_names_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = table(5, datasets.ClassLabel(names=NAMES), lambda index: -1)
    splits = read(write(tmp_path / "d", train=classes(30), test=hidden, extra=classes(3)))
    assert sorted(chain.from_iterable(map(indices, splits.images))) == [*range(30)]
    assert "left out extra" in caplog.text
    assert "the split test has no labels" in caplog.text


def test_mistakes_are_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = write(tmp_path / "d", train=classes(30))
    text = write(tmp_path / "t", train=table(9, datasets.Value("string"), lambda i: NAMES[i % 3]))
    for typed, line in {
        ("data.num_classes=4",): r"data\.num_classes=4: .* has 3 classes, ant, bee, cat; set",
        ("data.label_column=yy",): r"data\.label_column=yy: .* no such column; did you mean y\?",
        ("data.image_column=id",): r"id: holds Value\('int64'\), and no images; type data.image_c",
        ("data.label_column=img",): r"data\.label_column=img: holds Image\(.*, and no class labels",
        (
            write(
                tmp_path / "s", train=table(9, {"a": datasets.Value("int64")}, lambda i: {"a": i})
            ),
            "data.label_column=y",
        ): r"data\.label_column=y: holds \{'a': .*, and no class labels",
        ("data.config=other",): r"data\.config=other: BuilderConfig 'other' not found",
        (text,): r"none of the columns id, img, y holds class labels; type data\.label_column=COL",
        (text, "data.label_column=y"): r"data\.label_column=y: holds text; write the files with",
    }.items():
        with pytest.raises(ConfigError, match=line):
            read(named, *typed)
    with pytest.raises(ConfigError, match="has the splits a, b, and no train"):
        read(write(tmp_path / "ab", a=classes(3), b=classes(3)))
    (tmp_path / "d" / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    logged: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("datasets").handlers[0], "emit", logged.append)
    with pytest.raises(CorruptDataError, match=f"{named}: cannot be read: "):
        read(named)
    assert not logged
    with pytest.raises(MissingDataError, match=r"no such folder, .* type data\.download=true"):
        read("data.name=nobody/nothing")

    def offline(*arguments: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(TrainingError, match=r"the download failed: no network; check the name"):
        read("data.name=nobody/nothing", "data.download=true")


def test_an_image_of_another_address_is_not_fetched(tmp_path: Path) -> None:
    held = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    kinds = datasets.Features({"img": held, "y": datasets.ClassLabel(names=NAMES)})
    rows = {"img": [{"bytes": None, "path": "https://example.com/1.png"}] * 9, "y": [0, 1, 2] * 3}
    away = datasets.Dataset.from_dict(rows, features=kinds)
    with pytest.raises(CorruptDataError, match=r"item 0 of 9: cannot be read: FileNotFoundError"):
        read(write(tmp_path / "d", train=away))


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    named = write(tmp_path / "d", train=classes(90))
    run = (
        *(text for text in SMALL if not text.startswith("data")), "data=huggingface", named,
        "data.num_classes=3", "data.shape=[1,16,16]", "data.batch_size=8",
    )  # fmt: skip
    assert Whole(tmp_path / "run", run).check_killed("batch", 7)
