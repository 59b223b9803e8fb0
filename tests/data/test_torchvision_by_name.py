"""Datasets of torchvision by name, of files that have their layout: EuroSAT, EMNIST and others."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets import eurosat

from convtrain.data.images import Images, Splits
from convtrain.errors import ConfigError, CorruptDataError, MissingDataError, TrainingError
from convtrain.use.evaluate import evaluate
from tests.conftest import Train, compose
from tests.training.test_resume import SMALL, Whole

EUROSAT = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
    "PermanentCrop", "Residential", "River", "SeaLake",
)  # fmt: skip


def picture(path: Path, level: int) -> None:
    """Write a grey PNG, whatever the extension says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (level, level, level)).save(path, format="png")


def write_eurosat(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label, name in enumerate(EUROSAT):
        for index in range(4):
            picture(root / "eurosat" / "2750" / name / f"{name}_{index}.jpg", label)


def write_pets(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "oxford-iiit-pet"
    for split, each in (("trainval", 2), ("test", 1)):
        lines = []
        for label in range(37):
            for index in range(each):
                image = f"breed_{chr(97 + label % 26)}{label // 26}_{split}{index}"
                picture(base / "images" / f"{image}.jpg", label)
                lines.append(f"{image} {label + 1} {1 + label % 2} 1\n")
        (base / "annotations").mkdir(exist_ok=True)
        (base / "annotations" / f"{split}.txt").write_text("".join(lines))


def write_letters(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = root / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for split, each in (("train", 2), ("test", 1)):
        labels = np.repeat(np.arange(26, dtype=np.uint8), each)
        pixels = np.broadcast_to(labels[:, None, None], (len(labels), 28, 28)).tobytes()
        for kind, sizes, content in (
            ("images-idx3", (len(labels), 28, 28), pixels),
            ("labels-idx1", (len(labels),), (labels + 1).tobytes()),
        ):
            head = struct.pack(f">BBBB{len(sizes)}I", 0, 0, 8, len(sizes), *sizes)
            (raw / f"emnist-letters-{split}-{kind}-ubyte").write_bytes(head + content)


def write_flowers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)
    base, count = root / "flowers-102", 3 * 102
    for index in range(count):
        picture(base / "jpg" / f"image_{index + 1:05}.jpg", index % 102)
    savemat(base / "imagelabels.mat", {"labels": np.arange(count) % 102 + 1})
    ids = np.arange(count).reshape(3, 102) + 1
    savemat(base / "setid.mat", dict(zip(("trnid", "valid", "tstid"), ids, strict=True)))


Write = Callable[[Path, pytest.MonkeyPatch], None]
WRITTEN: dict[str, tuple[Write, tuple[str, ...], list[int], str]] = {
    "EuroSAT": (write_eurosat, (), [20, 10, 10], "SeaLake"),
    "OxfordIIITPet": (write_pets, (), [37, 37, 37], "Breed K1"),
    "EMNIST": (write_letters, ("data.split=letters",), [26, 26, 26], "z"),
    "Flowers102": (write_flowers, (), [102, 102, 102], "blackberry lily"),
}  # fmt: skip


def levels(images: Images) -> list[int]:
    """Return the grey level of each image, which is its class."""
    pixels = images.read(torch.arange(len(images)))
    assert (pixels.flatten(1) == pixels[:, :1, 0, 0]).all()
    return pixels[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("name", WRITTEN)
def test_images_labels_and_splits_are_those_of_the_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, typed, sizes, last = WRITTEN[name]
    write(tmp_path, monkeypatch)
    config = compose("data=torchvision", f"data.name={name}", f"data.root={tmp_path}", *typed)
    splits = config.data.build()
    assert isinstance(splits, Splits)
    assert [len(images) for images in splits.images] == sizes
    for images in splits.images:
        assert levels(images) == images.labels.tolist()
        assert set(levels(images)) == set(range(config.data.class_count))
    assert splits.classes is not None
    assert len(splits.classes) == config.data.class_count
    assert splits.classes[-1] == last


def test_other_targets_of_a_dataset_have_other_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pets(tmp_path, monkeypatch)
    typed = ("data=torchvision", "data.name=OxfordIIITPet", "data.target_types=binary-category")
    splits = compose(*typed, f"data.root={tmp_path}").data.build()
    assert isinstance(splits, Splits)
    assert splits.classes == ["Cat", "Dog"]
    assert splits.test.labels.tolist() == [label % 2 for label in levels(splits.test)]


def built(root: Path, *typed: str) -> Splits:
    config = compose("data=torchvision", "data.name=EuroSAT", f"data.root={root}", *typed)
    splits = config.data.build()
    assert isinstance(splits, Splits)
    return splits


def test_what_is_missing_or_cannot_be_fetched_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*arguments: object, **options: object) -> None:
        raise URLError("no network")

    def escaping(url: str, download_root: str, md5: str) -> None:
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            archive.writestr("../escaped.jpg", b"")
        datasets.utils.extract_archive(str(tmp_path / "images.zip"), download_root)

    with pytest.raises(MissingDataError) as missing:
        built(tmp_path)
    assert str(missing.value) == (
        f"data.name=EuroSAT: {tmp_path} lacks files, or they are damaged; type data.download=true, "
        f"or set data.root=FOLDER"
    )
    monkeypatch.setattr(eurosat, "download_and_extract_archive", offline)
    with pytest.raises(TrainingError, match=r"data\.name=EuroSAT: the download into .* no network"):
        built(tmp_path, "data.download=true")
    monkeypatch.setattr(eurosat, "download_and_extract_archive", escaping)
    with pytest.raises(
        CorruptDataError, match=r"member \.\./escaped\.jpg could be written outside"
    ):
        built(tmp_path, "data.download=true")
    assert not (tmp_path / "escaped.jpg").exists()
    picture(tmp_path / "eurosat" / "2750" / "Forest" / "1.jpg", 1)
    with pytest.raises(MissingDataError, match=r"1 classes are there, Forest, .* has 10; restore"):
        built(tmp_path)
    with pytest.raises(
        MissingDataError, match=r"put them into .*/stanford_cars, or set data\.root"
    ):
        compose("data=torchvision", "data.name=StanfordCars", f"data.root={tmp_path}").data.build()


def test_files_that_are_there_are_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_eurosat(tmp_path, monkeypatch)
    monkeypatch.delattr(datasets.EuroSAT, "download")
    assert len(built(tmp_path, "data.download=true").train) == 20


def test_a_run_is_evaluated_on_other_files_and_on_another_dataset_by_the_names_of_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Train
) -> None:
    for place in ("here", "there"):
        write_eurosat(tmp_path / place, monkeypatch)
    picture(tmp_path / "there" / "eurosat" / "2750" / "River" / "one_more.jpg", 8)
    typed = ("data=torchvision", "data.name=EuroSAT", f"data.root={tmp_path / 'here'}")
    train(*typed, "network=lenet", "data.batch_size=5")
    run, there = tmp_path / "run", f"data.root={tmp_path / 'there'}"
    assert evaluate(run, [])["metrics"] == evaluate(run, typed)["metrics"]
    found = evaluate(run, [there], split="all")
    assert (found["images"], found["source"]) == (41, f"data.name=EuroSAT {there}")
    assert found["class_names"] == [*EUROSAT]
    write_pets(tmp_path / "there", monkeypatch)
    with pytest.raises(ConfigError, match="none of its classes, Breed A0, "):
        evaluate(run, [there, "data.name=OxfordIIITPet"])


RUN = (
    *(text for text in SMALL if not text.startswith("data")), "data=torchvision",
    "data.name=FakeData", "data.num_classes=3", "data.size=90", "data.image_size=[3,16,16]",
    "data.shape=[3,16,16]", "data.batch_size=8", "data.eval_batch_size=4",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("style", ["functional", "nn"])
def test_killed_and_resumed_it_ends_as_if_it_had_not_been_killed(
    style: str, tmp_path: Path
) -> None:
    whole = Whole(tmp_path, (*RUN, f"model={style}"))
    for place, number in (("batch", 7), ("validation", 2), ("epoch's end", 0)):
        assert whole.check_killed(place, number), place
