"""Everything that can stand in an image folder, and the rule for it."""

import logging
import os
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from convtrain.config.folders import read_layout
from convtrain.config.image_files import IMAGE_SUFFIXES
from convtrain.data.images import Splits
from convtrain.data.sources import image_folder
from convtrain.errors import ConfigError, MissingDataError
from tests.conftest import Train, compose
from tests.data.resident import in_memory

read_folder = partial(
    image_folder.load,
    shape=[1, 2, 2], resize="stretch", val_fraction=0.25, test_fraction=0.25,
    split_seed=0, memory_gib=1.0, max_pixels=100,
)  # fmt: skip
PER_CLASS = 8


def make(root: Path, *entries: str) -> Path:
    """Make a tree: ``a/`` is an empty folder, ``a/*`` eight images, ``a -> b`` a link, else a file.

    The grey level of an image is its split and class, so that a test can tell where it came from.
    """
    for entry in entries:
        name, _, target = entry.partition(" -> ")
        path = root / name.rstrip("/*")
        if target:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        elif entry.endswith("/"):
            path.mkdir(parents=True)
        elif entry.endswith("/*"):
            path.mkdir(parents=True, exist_ok=True)
            for index in range(PER_CLASS):
                save(path / f"{index}.png")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path) if path.suffix.lower() in IMAGE_SUFFIXES else path.write_text("text")
    return root


def save(path: Path) -> None:
    Image.new("L", (2, 2), sum(path.parent.as_posix().encode()) % 256).save(path, "PNG")


def load(root: Path, **options: Any) -> Splits:
    classes = options.pop("classes", None) or read_layout(root).classes
    return read_folder(root=str(root), classes=classes, **options)


def grey(folder: Path) -> int:
    return sum(folder.as_posix().encode()) % 256


# --- train, val and test --------------------------------------------------------------------------

TWO = ("cat", "dog")


def of(*folders: str) -> list[str]:
    return [f"{folder}/{name}/*".lstrip("/") for folder in folders for name in TWO]


# The folders, the number of images in train, val and test, and whether they are of their folders.
COMBINATIONS: dict[str, tuple[list[str], tuple[int, int, int]]] = {
    "classes alone": (of(""), (8, 4, 4)),
    "train": (of("train"), (8, 4, 4)),
    "train and val": (of("train", "val"), (16, 16, 16)),
    "train and valid": (of("train", "valid"), (16, 16, 16)),
    "train and validation": (of("train", "validation"), (16, 16, 16)),
    "train and test": (of("train", "test"), (12, 4, 16)),
    "train, val and test": (of("train", "val", "test"), (16, 16, 16)),
    "train, valid and test": (of("train", "valid", "test"), (16, 16, 16)),
    "train, validation and test": (of("train", "validation", "test"), (16, 16, 16)),
}
WITHOUT_TRAIN = {"val": of("val"), "test": of("test"), "val and test": of("val", "test")}


@pytest.mark.parametrize(("entries", "sizes"), COMBINATIONS.values(), ids=COMBINATIONS)
def test_each_image_goes_where_its_folder_says(
    tmp_path: Path, entries: list[str], sizes: tuple[int, int, int]
) -> None:
    make(tmp_path, *entries)
    splits = load(tmp_path)
    assert tuple(map(len, splits.images)) == sizes
    there = {path.name: path for path in tmp_path.iterdir()}
    own = {"val" if name.startswith("val") else name: path for name, path in there.items()}
    tested = "test" if "test" in own or "val" not in own else "val"
    assert splits.tested == tested
    for split, images in zip(("train", "val", "test"), splits.images, strict=True):
        name = tested if split == "test" else split
        folder = own.get(name, own.get("train", tmp_path))
        for label, class_name in enumerate(TWO):
            levels = in_memory(images)[images.labels == label].unique().tolist()
            assert levels == [grey(folder / class_name)]


@pytest.mark.parametrize("entries", WITHOUT_TRAIN.values(), ids=WITHOUT_TRAIN)
@pytest.mark.parametrize("beside", [[], of("")], ids=["alone", "beside classes"])
def test_val_and_test_need_train(tmp_path: Path, entries: list[str], beside: list[str]) -> None:
    make(tmp_path, *entries, *beside)
    with pytest.raises(MissingDataError, match="without train; move the training images into"):
        read_layout(tmp_path)
    if beside:  # and if one says which are the classes, they still hold these
        with pytest.raises(MissingDataError, match="without train"):
            read_layout(tmp_path, TWO)


def test_the_result_says_that_validation_images_were_tested(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    from convtrain.run.report import print_report

    make(tmp_path / "data", *of("train", "val"))
    typed = (
        "data=image_folder", f"data.root={tmp_path / 'data'}", "data.shape=[1,8,8]",
        "data.mean=[0.5]", "data.std=[0.5]", "data.batch_size=8", "network=convnet",
    )  # fmt: skip
    result = train(*typed)
    assert result["tested_split"] == "val"
    assert result["test/loss"] == pytest.approx(result["val/loss"], rel=1e-6)
    print_report(result, config=compose(*typed), run_dir=tmp_path / "run", overrides=typed)
    assert "of the validation images" in capsys.readouterr().out


# --- what else can stand there --------------------------------------------------------------------

# The entries beside train/cat/* and train/dog/*, and how many files are then left out with a word.
LEFT_OUT: dict[str, tuple[list[str], list[str]]] = {
    "a hidden folder beside the classes": (
        ["train/.ipynb_checkpoints/*"], ["train/.ipynb_checkpoints"],
    ),
    "a hidden folder in a class": (
        ["train/cat/.ipynb_checkpoints/*"], ["train/cat/.ipynb_checkpoints"],
    ),
    "a hidden folder beside train": ([".git/a.png"], []),
    "a hidden image": (["train/cat/.hidden.png"], ["train/cat/.hidden.png"]),
    "what macOS writes on other systems": (
        ["train/cat/._0.png", "train/cat/.DS_Store"], ["train/cat/.DS_Store", "train/cat/._0.png"],
    ),
    "what macOS puts into archives": (
        ["__MACOSX/train/cat/a.png", "train/__MACOSX/a.png"], ["train/__MACOSX"],
    ),
    "thumbnails of Synology": (
        ["train/@eaDir/a.png", "train/cat/@eaDir/0.png/thumb.jpg"],
        ["train/@eaDir", "train/cat/@eaDir"],
    ),
    "waste of network drives": (["#recycle/a.png", "train/@Recycle/a.png"], ["train/@Recycle"]),
    "waste of Windows": (["$RECYCLE.BIN/a.png", "System Volume Information/a.png"], []),
    "files of Windows": (
        ["train/cat/Thumbs.db", "train/cat/desktop.ini", "Thumbs.db"],
        ["train/cat/Thumbs.db", "train/cat/desktop.ini"],
    ),
    "lost and found": (["lost+found/"], []),
    "notes in a class": (["train/cat/notes.txt"], ["train/cat/notes.txt"]),
    "files without extension": (["train/cat/LICENSE"], ["train/cat/LICENSE"]),
    "other kinds of image": (["train/cat/a.svg", "train/dog/b.heic"],
                             ["train/cat/a.svg", "train/dog/b.heic"]),
    "a link to a folder in a class": (["train/cat/more -> ../dog"], ["train/cat/more"]),
    "images in no class": (["train/loose.png"], ["train/loose.png"]),
    "files beside the folders": (["README.md", "labels.csv", "train/labels.csv"], []),
    "folders without images beside train": (["annotations/a.xml", "empty/"], []),
    "a pipe": (["train/cat/PIPE"], ["train/cat/pipe.png"]),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "named"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_no_class_and_no_image_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, entries: list[str], named: list[str]
) -> None:
    make(tmp_path, *of("train"), *(entry for entry in entries if not entry.endswith("PIPE")))
    if entries[0].endswith("PIPE"):
        os.mkfifo(tmp_path / "train" / "cat" / "pipe.png")
    with caplog.at_level(logging.WARNING, logger="convtrain"):
        splits = load(tmp_path)
    assert read_layout(tmp_path).classes == list(TWO)
    assert sum(map(len, splits.images)) == 2 * PER_CLASS
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == bool(named)
    for line in told:
        assert f"left out {len(named)} file" in line
        assert all(name in line for name in named)


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "jif", "JPG", "Jpeg", "PNG", "tif", "pnm"])
def test_extensions_in_any_case_are_known(tmp_path: Path, suffix: str) -> None:
    make(tmp_path, *(f"{name}/{index}.{suffix}" for name in TWO for index in range(4)))
    assert sum(map(len, load(tmp_path).images)) == 8


def test_images_further_down_belong_to_the_class(tmp_path: Path) -> None:
    make(tmp_path, "cat/2020/*", "cat/2021/may/*", "dog/*", "dog/2020/*")
    splits = load(tmp_path)
    labels = torch.cat([images.labels for images in splits.images])
    assert labels.bincount().tolist() == [16, 16]


# The entries, and what the one line says; CLASSES stands for the override that it advises.
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "a class without files": (
        [*of(""), "bird/"], ["no images in ROOT for class bird (empty)", "data.classes=[cat,dog]"],
    ),
    "a class of other files": (
        [*of(""), "bird/a.heic", "bird/b.heic", "bird/c.txt"],
        ["class bird (only .heic, .txt)", "data.classes=[cat,dog]"],
    ),
    "a class of empty folders": ([*of(""), "bird/a/"], ["class bird (no image files)"]),
    "several classes without images": (
        [*of("train"), "train/ape/", "train/bird/"],
        ["no images in ROOT/train for class ape (empty), bird (empty)"],
    ),
    "a class of hidden images": ([*of(""), "bird/.a.png"], ["class bird (empty)"]),
    "no folders": (["a.png"], ["ROOT holds no class folders; expected ROOT/CLASS/*.jpg"]),
    "images in train itself": (["train/a.png"], ["ROOT/train holds no class folders"]),
    "nothing": ([], ["holds no class folders"]),
    "a class that only test has": (
        [*of("train", "test"), "test/bird/*"],
        ["ROOT/test has classes that ROOT/train has not: bird", "data.classes=[cat,dog]"],
    ),
    "a class that only val has": (
        [*of("train", "val", "test"), "val/bird/*"], ["ROOT/val has classes", "bird"],
    ),
    "a class that test lacks": (
        [*of("train", "test"), "train/bird/*"],
        ["ROOT/test has no images of bird", "accept it with data.allow_missing_classes=true"],
    ),
    "a class that is empty in test": (
        [*of("train", "test"), "train/bird/*", "test/bird/"], ["ROOT/test has no images of bird"],
    ),
    "a class called train": (
        ["bus/*", "plane/*", "train/*"], ["beside train", "data.classes=[bus,plane,train]"],
    ),
    "a class called train, of folders": (
        ["bus/*", "plane/*", "train/steam/*", "train/diesel/*"],
        ["beside train", "data.classes=[bus,plane,train]"],
    ),
    "a class called test": (
        ["cat/*", "test/*"], ["there is test without train", "data.classes=[cat,test]"],
    ),
    "a folder of images beside train": (
        [*of("train", "test"), "unlabelled/*"],
        ["there are images in unlabelled, beside train", "or 'data.classes=[cat,dog]' if it"],
    ),
    "two folders for validation": (
        of("train", "val", "valid"), ["val and valid are both there; keep one for validation"],
    ),
    "splits by other names": (
        of("Training", "Testing"),
        ["Testing, Training each hold the folders cat, dog", "call the splits train, val and test"],
    ),
    "splits by other names, of other classes": (
        [*of("Train", "Test"), "Train/bird/*"], ["Test, Train each hold the folders cat, dog"],
    ),
    "splits of which some have capitals": (
        of("train", "Val", "Test"), ["there is Test, and the splits are", "rename it to test"],
    ),
    "train with a capital, and val": (
        of("Train", "val"), ["there is Train, and the splits are", "rename it to train"],
    ),
    "splits in each class": (
        ["cat/train/*", "cat/test/*", "dog/train/*", "dog/test/*"],
        ["cat, dog each hold the folders test, train"],
    ),
    "folders of folds": (of("fold1", "fold2", "fold3"), ["fold1, fold2, fold3 each hold"]),
    "a folder too high": (
        of("PetImages"), ["holds one folder, PetImages", "set data.root=ROOT/PetImages"],
    ),
    "a folder too high, of splits": (
        of("data/train", "data/test"), ["set data.root=ROOT/data"],
    ),
    "a folder too many in train": (
        of("train/images"),
        ["ROOT/train holds one folder, images", "move these up into ROOT/train"],
    ),
    "a class that is a link to nowhere": (
        [*of(""), "bird -> missing"], ["ROOT/bird: a link that leads nowhere"],
    ),
    "a class that is a loop": ([*of(""), "bird -> bird"], ["ROOT/bird: a link that leads nowhere"]),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused_in_one_line(
    tmp_path: Path, entries: list[str], words: list[str]
) -> None:
    make(tmp_path, *entries)
    with pytest.raises(ConfigError) as raised:
        read_layout(tmp_path)
    assert len(raised.value.lines) == 1
    for each in words:
        assert each.replace("ROOT", str(tmp_path)) in str(raised.value)


IMAGE_LINKS = {"nowhere": "missing.png", "itself": "link.png"}


@pytest.mark.parametrize("target", IMAGE_LINKS.values(), ids=IMAGE_LINKS)
def test_an_image_that_is_a_link_to_nowhere_is_named(tmp_path: Path, target: str) -> None:
    make(tmp_path, *of(""), f"cat/link.png -> {target}")
    with pytest.raises(MissingDataError, match=r"cat/link\.png: a link that leads nowhere"):
        load(tmp_path)


UNREADABLE = ["", "cat", "cat/deep", "train", "train/cat"]


@pytest.mark.parametrize("folder", UNREADABLE)
def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """As it is for users who are not root."""
    make(tmp_path, *of("train" if folder.startswith("train") else ""))
    make(tmp_path, "cat/deep/*" if folder == "cat/deep" else "README.md")
    plain = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path) == tmp_path / folder:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(MissingDataError) as raised:
        load(tmp_path)
    assert "Permission denied" in str(raised.value)
    assert (Path(folder).name or str(tmp_path)) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


# --- data.classes decides -------------------------------------------------------------------------

# The entries, data.classes, and the folders of train, val and test that are then read.
DECIDED: dict[str, tuple[list[str], list[str], dict[str, str]]] = {
    "some of the classes": ([*of(""), "bird/"], ["cat", "dog"], {"train": ""}),
    "a class called train": (["bus/*", "train/*"], ["bus", "train"], {"train": ""}),
    "a class called train beside a split's name": (
        ["bus/*", "train/*", "test/*"], ["bus", "train"], {"train": ""},
    ),
    "images beside train": ([*of("train"), "more/*"], ["cat", "dog"], {"train": "train"}),
    "a class that test lacks": (
        [*of("train", "test"), "train/bird/*"], ["bird", "cat", "dog"],
        {"train": "train", "test": "test"},
    ),
    "a class that only test has": (
        [*of("train", "test"), "test/bird/*"], ["cat", "dog"], {"train": "train", "test": "test"},
    ),
    "a test folder without classes": ([*of(""), "test/*"], ["cat", "dog"], {"train": ""}),
    "a class called test": ([*of(""), "test/*"], ["cat", "test"], {"train": ""}),
    "folders of the same folders": (
        of("Training", "Testing"), ["Testing", "Training"], {"train": ""},
    ),
    "one class of folders": (of("one"), ["one"], {"train": ""}),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "classes", "folders"), DECIDED.values(), ids=DECIDED)
def test_the_classes_that_one_names_decide(
    tmp_path: Path, entries: list[str], classes: list[str], folders: dict[str, str]
) -> None:
    make(tmp_path, *entries)
    layout = read_layout(tmp_path, classes)
    assert layout.splits == {split: tmp_path / folder for split, folder in folders.items()}
    splits = load(tmp_path, classes=classes)
    assert sorted(splits.train.labels.unique().tolist()) == list(range(len(classes)))


def test_missing_classes_can_be_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, *of("train", "val", "test"), "train/ant/*", "val/bee/", "test/bee/*")
    make(tmp_path, "train/emu/", "val/emu/*")
    typed = ("data=image_folder", f"data.root={tmp_path}", "network=lenet", "data.shape=[1,2,2]",
             "data.mean=[0]", "data.std=[1]")  # fmt: skip
    with pytest.raises(ConfigError, match=r"no images in .*/train for class emu \(empty\)"):
        compose(*typed)
    (tmp_path / "train" / "emu").rmdir()
    with pytest.raises(ConfigError, match=r"not: emu; .* with data.allow_missing_classes=true$"):
        compose(*typed)
    data = compose(*typed, "data.allow_missing_classes=true").data
    assert data.classes == ["ant", "bee", "cat", "dog", "emu"]
    there = [images.labels.unique().tolist() for images in data.build().images]
    assert there == [[0, 2, 3], [2, 3, 4], [1, 2, 3]]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"{tmp_path / 'train'} has no images of bee, emu",
        f"{tmp_path / 'val'} has no images of ant, bee",
        f"{tmp_path / 'test'} has no images of ant, emu",
    ]
    (tmp_path / "train" / "fox").mkdir()  # no split has images of it
    with pytest.raises(ConfigError, match=r"no images in .*/train for class fox \(empty\)"):
        compose(*typed, "data.allow_missing_classes=true")


def test_the_override_that_is_advised_can_be_typed(tmp_path: Path) -> None:
    names = ["New York", "it's", "no", "1", "plain", "a,b", "x[1]", "$HOME", 'quo"te']
    make(tmp_path, *(f"{name}/*" for name in names), "zzz/")
    with pytest.raises(MissingDataError) as raised:
        read_layout(tmp_path)
    advised = str(raised.value).partition(" leave it out with ")[2]
    (override,) = shlex.split(advised)
    config = compose("data=image_folder", f"data.root={tmp_path}", override, "network=lenet")
    assert config.data.classes == sorted(names)


# --- data.limit and too few images ----------------------------------------------------------------


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    counts = {"ape": 60, "bee": 30, "cow": 10}
    for name, count in counts.items():
        for index in range(count):
            for split in ("train", "val", "test"):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                Image.new("L", (2, 2), index).save(tmp_path / split / name / f"{index:03d}.png")
    return tmp_path


def test_a_limit_keeps_the_proportions_of_the_classes(uneven: Path) -> None:
    for limit, counts in {10: [6, 3, 1], 50: [30, 15, 5], 100: [60, 30, 10]}.items():
        for images in load(uneven, limit=limit).images:
            assert images.labels.bincount(minlength=3).tolist() == counts
    assert load(uneven, limit=3).train.labels.tolist() == [0, 1, 2]  # none is lost
    assert len(load(uneven, limit=1000).train) == 100


def test_a_limit_follows_from_the_seed_of_the_splits_alone(uneven: Path) -> None:
    def chosen(limit: int = 20, **options: Any) -> set[tuple[int, int]]:
        images = load(uneven, limit=limit, **options).train
        return set(zip(images.labels.tolist(), in_memory(images)[:, 0, 0, 0].tolist(), strict=True))

    assert chosen() == chosen()
    assert chosen() != chosen(split_seed=1)
    assert {(0, index) for index in range(12)} - chosen()  # not the first of a class
    assert chosen(limit=10) < chosen(limit=20) < chosen(limit=50)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ("digits", "data.limit=64"),
        ("synthetic", "data.limit=64"),
        ("image_folder", "data.limit=64"),
        ("image_folder", "data.overfit_batches=1"),
    ],
)
def test_every_source_is_cut_to_all_of_its_classes(tmp_path: Path, data: str, key: str) -> None:
    from convtrain.assembly import make_data

    folder = []
    if data == "image_folder":
        for name in "abcdefgh":
            make(tmp_path, *(f"train/{name}/{index:02d}.png" for index in range(32)))
        folder = [f"data.root={tmp_path}"]
    config = compose(f"data={data}", "data.batch_size=64", key, "network=lenet", *folder)
    train = make_data(config).splits.train
    assert len(train) == 64
    counts = train.labels.bincount()
    assert counts.min() >= 0.5 * counts.max()


def test_classes_with_too_few_images_are_named_with_their_number(tmp_path: Path) -> None:
    make(tmp_path, "ape/*", "cow/1.png", "cow/2.png", "dog/1.png")
    with pytest.raises(ConfigError) as raised:
        load(tmp_path)
    assert "training, validation and test need at least 3 images of each class" in str(raised.value)
    assert "too few of class cow (2), dog (1)" in str(raised.value)
    make(tmp_path / "own", "train/ape/*", "train/cow/1.png", "test/ape/*", "test/cow/1.png")
    with pytest.raises(ConfigError, match=r"training and validation need at least 2 .* cow \(1\)"):
        load(tmp_path / "own")
    make(tmp_path / "own", "val/ape/*", "val/cow/1.png")
    assert len(load(tmp_path / "own").train) == PER_CLASS + 1
