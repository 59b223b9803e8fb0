"""data=torchvision and data=huggingface: the table is torchvision's, and mistakes are lines."""

import inspect
from pathlib import Path

import pytest
from torchvision import datasets

from convtrain.config import data_rules
from convtrain.config.targets import check_targets
from convtrain.config.torchvision_datasets import OTHERS, ROWS, constructor
from convtrain.errors import ConfigError
from docs.generate import torchvision_datasets as data_page
from tests.conftest import compose

HERE = [name for name in ROWS if hasattr(datasets, name)]
"""Rows that the installed torchvision has."""


@pytest.mark.parametrize("name", HERE)
def test_a_row_is_what_torchvision_takes(name: str, tmp_path: Path) -> None:
    """Each value of an argument is one that the constructor knows: only the files are missing."""
    row, made = ROWS[name], constructor(name)
    takes = inspect.signature(made).parameters
    assert not any(each.kind is each.VAR_KEYWORD for each in takes.values())
    assert "download" in takes or row.by_hand or name == "FakeData"
    root = {"root": str(tmp_path)} if "root" in takes else {}
    values = row.classes if row.by and isinstance(row.classes, dict) else [None]
    for value in values:
        for arguments in (row.splits or {"": {}}).values():
            given = {**root, **({row.by: value} if row.by else {}), **arguments}
            inspect.signature(made).bind(**given)
            if name != "FakeData":
                with pytest.raises(Exception) as missing:  # noqa: PT011, each class has its own
                    made(**given, **({"download": False} if "download" in takes else {}))
                assert not isinstance(missing.value, TypeError | ValueError)


def test_the_numbers_of_classes_are_those_of_the_names_in_torchvision() -> None:
    found = {name: getattr(datasets, name).__dict__.get("classes") for name in HERE}
    named = {name: len(names) for name, names in found.items() if isinstance(names, list)}
    assert {"MNIST", "FashionMNIST", "KMNIST"} <= named.keys()
    assert named == {name: ROWS[name].classes for name in named}
    letters = {split: len(names) for split, names in datasets.EMNIST.classes_split_dict.items()}
    assert letters == {**ROWS["EMNIST"].classes, "letters": 1 + 26}  # type: ignore[dict-item]


def test_what_is_no_classification_is_not_in_the_table() -> None:
    assert not OTHERS.keys() & ROWS.keys()
    assert set(OTHERS) <= set(datasets.__all__)


KNOWN = "data=torchvision"
MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no name": ((KNOWN,), "data.name: is missing"),
    "a spelling": ((KNOWN, "data.name=eurosat"), "data.name=eurosat: is no classification dataset "
                   "of torchvision; did you mean EuroSAT?"),
    "no classification": ((KNOWN, "data.name=CocoDetection"), "data.name=CocoDetection: is no "
                          "classification of images: it has boxes"),
    "a folder": ((KNOWN, "data.name=ImageFolder"), "data.name=ImageFolder: reads a folder of your "
                 "own; type data=image_folder data.root=FOLDER"),
    "another number of classes": ((KNOWN, "data.name=EuroSAT", "data.num_classes=3"),
                                  "data.num_classes=3: EuroSAT has 10 classes; leave it out"),
    "no number of classes": ((KNOWN, "data.name=FakeData"), "data.num_classes=null: must be given"),
    "a value": ((KNOWN, "data.name=EMNIST", "data.split=letter"), "data.split=letter: must be one "
                "of balanced, byclass, bymerge, letters, digits, mnist"),
    "a type": ((KNOWN, "data.name=DTD", "data.partition=two"), "data.partition=two: must be a "
               "whole number (an argument of DTD)"),
    "an argument": ((KNOWN, "data.name=DTD", "data.partion=2"), "data.partion=2: DTD has no such "
                    "argument; did you mean partition?"),
    "an argument of no base class": ((KNOWN, "data.name=EMNIST", "data.compat=true"), "data.compat="
                                     "true: EMNIST has no such argument; it takes split"),
    "the argument of the splits": ((KNOWN, "data.name=DTD", "data.split=test"), "data.split=test: "
                                   "is given by convtrain; leave it out"),
    "a function": ((KNOWN, "data.name=DTD", "data.transform=null"), "data.transform=null: is given "
                   "by convtrain"),
    "a loss for one class": ((KNOWN, "data.name=CelebA"), "loss=cross_entropy: expects one class "
                             "an image, and the images of data.name=CelebA have any number"),
    "a kind": (("+data.kind=imagenet",), "data.kind=imagenet: no such key here; it belongs to "
               "data=torchvision, huggingface"),
    "a key": (("data=huggingface", "data.name=x", "data.num_classes=2", "data.image_colum=a"),
              "data.image_colum=a: no such key; did you mean data.image_column?"),
}  # fmt: skip


@pytest.mark.parametrize(("typed", "line"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_a_line(
    typed: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_rules, "_is_installed", lambda package: True)
    with pytest.raises(ConfigError) as raised:
        check_targets(compose(*typed))
    (found,) = raised.value.lines
    assert found.startswith(line)


def test_what_is_not_installed_is_a_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    flowers, eurosat = (compose(KNOWN, f"data.name={name}") for name in ("Flowers102", "EuroSAT"))
    monkeypatch.setattr(data_rules, "_is_installed", lambda package: False)
    with pytest.raises(ConfigError, match="by scipy, which is not installed; pip install scipy"):
        compose(KNOWN, "data.name=Flowers102")
    with pytest.raises(ConfigError, match=r"by datasets, which is not .*; pip .*\[huggingface\]"):
        compose("data=huggingface", "data.name=x", "data.num_classes=2")
    check_targets(flowers)
    monkeypatch.delattr(datasets, "EuroSAT")
    with pytest.raises(ConfigError, match=r"data\.name=EuroSAT: torchvision \S+ does not have it"):
        check_targets(eurosat)


def test_a_file_beside_the_configuration_is_no_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "not_installed.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ROWS, "EuroSAT", ROWS["EuroSAT"]._replace(needs="not_installed"))
    with pytest.raises(ConfigError, match="is read by not_installed, which is not installed"):
        compose(KNOWN, "data.name=EuroSAT")


def test_shape_and_classes_follow_from_the_name_unless_they_are_typed() -> None:
    data = compose(KNOWN, "data.name=EMNIST", "data.split=letters").data
    assert (data.shape, data.class_count, data.mean) == ([1, 28, 28], 26, [0.5])
    data = compose(KNOWN, "data.name=EuroSAT", "data.shape=[3,32,32]").data
    assert (data.shape, data.class_count, data.std) == ([3, 32, 32], 10, [0.25] * 3)


def test_the_table_of_the_page_is_current() -> None:
    written = data_page.PAGE.read_text()
    assert data_page.table() in written
    assert written == data_page.page(), "write it with python -m docs.generate torchvision_datasets"
