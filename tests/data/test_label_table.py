"""A file that lists images, labels and splits: read as the folder of the same images is."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convtrain.config.label_table import TableFormat, read_table
from convtrain.data.images import Splits
from convtrain.data.sources import image_folder, label_table
from convtrain.errors import ConfigError, MissingDataError
from convtrain.use.evaluate import evaluate
from tests.conftest import Train, compose
from tests.data.resident import in_memory

OPTIONS: dict[str, Any] = {
    "shape": [3, 8, 8], "resize": "crop", "val_fraction": 0.25, "test_fraction": 0.25,
    "split_seed": 0, "memory_gib": 1.0, "max_pixels": 10_000,
}  # fmt: skip
KEYS = dict.fromkeys(TableFormat._fields)
CLASSES = ("ant", "bee", "cat")
HEAD = "path,label\n"


def fill(root: Path, *splits: str, count: int = 8) -> list[tuple[str, str, str]]:
    """Draw images in class folders; return path, class and split of each, in their order."""
    draw, rows = np.random.default_rng(0), []
    for split in splits:
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                path = Path(split, name, f"{index}.png")
                pixels = draw.integers(0, 256, (9, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / path)
                rows.append((path.as_posix(), name, split))
    return rows


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def load(file: Path, **options: Any) -> Splits:
    keys = {**KEYS, "file": str(file), **{k: options.pop(k) for k in KEYS if k in options}}
    classes = options.pop("classes", None) or read_table(TableFormat(**keys)).classes
    return label_table.load(classes=classes, **keys, **{**OPTIONS, **options})


def same(left: Splits, right: Splits) -> bool:
    return left.tested == right.tested and all(
        torch.equal(in_memory(a), in_memory(b)) and torch.equal(a.labels, b.labels)
        for a, b in zip(left.images, right.images, strict=True)
    )


SPLITS = {
    "none": [""], "train": ["train"], "train and val": ["train", "val"],
    "train and test": ["train", "test"], "all": ["train", "validation", "test"],
}  # fmt: skip


@pytest.mark.parametrize("splits", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("limit", [None, 7])
def test_a_table_of_a_folder_gives_the_images_of_the_folder(
    tmp_path: Path, splits: list[str], limit: int | None
) -> None:
    rows = fill(tmp_path, *splits)
    head = ["path", "label", "split"] if splits != [""] else ["path", "label"]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *(row[: len(head)] for row in rows)])
    table = load(tmp_path / "labels.csv", limit=limit)
    folder = image_folder.load(root=str(tmp_path), classes=list(CLASSES), limit=limit, **OPTIONS)
    assert same(table, folder)


def refused(*overrides: str) -> str:
    """Return the one line of the check."""
    with pytest.raises(ConfigError) as raised:
        compose("data=csv", "network=lenet", *overrides)
    assert len(raised.value.lines) == 1
    return str(raised.value)


def test_the_check_knows_the_classes_and_counts_the_files_that_are_missing(tmp_path: Path) -> None:
    rows = fill(tmp_path, "train", "val")
    text = "path,label,split\n" + "".join(f"{','.join(row)}\n" for row in rows)
    file = f"data.file={write(tmp_path / 't.csv', text)}"
    config = compose("data=csv", file, "network=lenet")
    assert (config.data.num_classes, config.data.classes) == (3, list(CLASSES))
    assert (
        compose("data=csv", file, "data.classes=[cat,ant]", "network=lenet").data.num_classes == 2
    )
    line = refused(file, "data.classes=[cat,aunt]")
    assert f"data.classes=[cat, aunt]: no images to train with in {file}; there are ant, " in line
    assert "data.num_classes=4: does not match the 3 names" in refused(file, "data.num_classes=4")
    assert "data.file: is missing" in refused()
    assert "data.delimiter=comm: must be 'comma', 'sem" in refused(file, "data.delimiter=comm")
    assert "data.label_separator=" in refused(file, "data.label_separator=''", "loss=bce")
    (tmp_path / "val/bee/0.png").unlink()
    (tmp_path / "val/bee/1.png").unlink()
    (tmp_path / "val/bee/1.png").mkdir()
    named = ", ".join(str(tmp_path / f"val/bee/{index}.png") for index in (0, 1))
    assert f"{file}: 2 of the 48 images that it lists are no files: {named}" in refused(file)
    assert "48 of the 48" in refused(file, f"data.root={tmp_path / 'val'}")


def test_classes_that_only_one_split_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row for row in fill(tmp_path, "train", "test") if row[1:] != ("cat", "test")]
    rows = [row for row in rows if row[1:] != ("ant", "train")]
    text = "path,label,split\n" + "".join(f"{','.join(row)}\n" for row in rows)
    file = f"data.file={write(tmp_path / 't.csv', text)}"
    assert refused(file) == (
        f"{file}: test has classes that train has not: ant; add rows, leave them out with "
        f"'data.classes=[bee,cat]', or accept it with data.allow_missing_classes=true"
    )
    assert "there are bee, cat" in refused(file, "data.classes=[ant,bee]")
    config = compose("data=csv", file, "data.allow_missing_classes=true", "network=lenet")
    assert config.data.classes == list(CLASSES)
    splits = config.data.build()
    assert [sorted(set(images.labels.tolist())) for images in splits.images] == [
        [1, 2],
        [1, 2],
        [0, 1],
    ]
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "train has no images of ant", "test has no images of cat",
    ]  # fmt: skip


def test_classes_can_be_chosen_and_ordered(tmp_path: Path) -> None:
    rows = fill(tmp_path, "")
    text = HEAD + "".join(f"{path},{label}\n" for path, label, _ in rows)
    file = write(tmp_path / "t.csv", text)
    chosen = load(file, classes=["cat", "ant"], divides=False).train
    everything = load(file, divides=False).train
    assert torch.equal(chosen.labels, torch.tensor([1] * 8 + [0] * 8))
    assert torch.equal(in_memory(chosen), in_memory(everything)[everything.labels != 1])


def test_any_number_of_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, "", count=20)
    labels = [("cat", "ant"), ("bee",), (), ("ant", "ant")]
    names = [f"{name}/{index}.png" for name in CLASSES for index in range(20)]
    text = HEAD + "".join(f"{n},{'|'.join(labels[i % 4])}\n" for i, n in enumerate(names))
    file = write(tmp_path / "t.csv", text)
    typed = ("data=csv", f"data.file={file}", "data.label_separator='|'", "network=lenet")
    with pytest.raises(ConfigError, match="any number of labels; type loss=bce"):
        compose(*typed)
    with pytest.raises(ConfigError, match=r"data\.classes=\[bee\]: is the only label; give the"):
        compose(*typed, "loss=bce", "data.classes=[bee]")
    load(file, label_separator="|")
    assert not caplog.records
    load(write(tmp_path / "one.csv", text.replace(",\n", ",bee\n")), divides=False)
    assert "ant|ant counts as one class; for several labels" in caplog.text
    images = compose(*typed, "loss=bce").data.build(divides=False).train
    vectors = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]])
    assert torch.equal(images.labels, vectors.repeat(15, 1))
    sample = load(file, label_separator="|", limit=12, divides=False).train
    assert (sample.labels[:, None] == vectors).all(2).sum(0).tolist() == [3, 3, 3, 3]
    some = load(file, label_separator="|", classes=["cat", "bee"], divides=False).train
    assert torch.equal(some.labels, vectors[:, [2, 1]].repeat(15, 1))


def test_both_train_to_the_same_bits(tmp_path: Path, train: Train) -> None:
    rows = fill(tmp_path / "data", "train", "test")
    file = tmp_path / "labels.tsv"  # elsewhere, so that data.root is needed
    write(file, "".join("\t".join(row) + "\r\n" for row in [("path", "label", "split"), *rows]))
    root = f"data.root={tmp_path / 'data'}"
    small = ("data.shape=[3,16,16]", "network=lenet", "data.batch_size=6", "trainer.max_epochs=2")
    results = [
        train("data=csv", f"data.file={file}", root, *small, name="table"),
        train("data=image_folder", root, *small, name="folder"),
    ]
    saved = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("table", "folder")
    ]
    weights, others = (each["state_dict"] for each in saved)
    assert all(torch.equal(weights[name], others[name]) for name in others)
    assert results[0]["test/loss"] == results[1]["test/loss"]
    found = evaluate(tmp_path / "folder", ["data=csv", f"data.file={file}", root])
    assert found["metrics"]["test/loss"] == results[0]["test/loss"]
    assert (found["source"], found["name"]) == (f"data.file={file}", "test-labels.tsv-data")
    other = write(
        tmp_path / "data" / "o.csv", "path,label\ntrain/bee/1.png,bee\ntest/ant/1.png,emu"
    )
    there = evaluate(tmp_path / "table", [f"data.file={other}", "data.root=null"], split="all")
    assert there["classes"] == {"matched": ["bee"], "unknown": ["emu"], "missing": ["ant", "cat"]}
    assert (there["images"], there["left_out"]) == (1, 1)


def read(file: Path, **typed: str) -> Any:
    return read_table(TableFormat(**{**KEYS, "file": str(file), **typed}))


FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "commas": ("path,label\na/1.png,ant\nb.png,bee\n", {}),
    "semicolons": ("path;label\na/1.png;ant\nb.png;bee", {}),
    "tabs": ("path\tlabel\na/1.png\tant\nb.png\tbee\n", {}),
    "other names and columns": ("Class,n,Image_Path\nant,1,a/1.png\nbee,2,b.png\n", {}),
    "typed names": (
        "id,breed\na/1.png,ant\nb.png,bee\n", {"path_column": "id", "label_column": "breed"},
    ),
    "a first choice": ("path,label,class\na/1.png,ant,x\nb.png,bee,x\n", {}),
    "a byte order mark": ("\ufeffpath,label\na/1.png,ant\nb.png,bee\n", {}),
    "lines of Windows, and empty ones": ("path,label\r\n\r\na/1.png,ant\r\n,\r\nb.png,bee\r\n", {}),
    "lines of old Macs": ("path,label\ra/1.png,ant\rb.png,bee\r", {}),
    "blanks": ("path, label\n a/1.png ,  ant \nb.png , bee\n", {}),
    "quotes": ('"path","label"\n"a/1.png","ant"\n"b.png","bee"\n', {}),
    "paths of Windows, and dots": ("path,label\n.\\a\\1.png,ant\nx/../b.png,bee\n", {}),
    "a typed delimiter": (
        "path,label;path;label\n0;a/1.png;ant\n0;b.png;bee\n", {"delimiter": "semicolon"},
    ),
    "a row twice": ("path,label\na/1.png,ant\nb.png,bee\n./a/1.png,ant\n", {}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "typed"), FORMS.values(), ids=FORMS)
def test_the_ways_to_write_a_table(tmp_path: Path, text: str, typed: dict[str, str]) -> None:
    table = read(write(tmp_path / "table.csv", text), **typed)
    assert table.labels == [("ant",), ("bee",)]
    assert table.files == [str(tmp_path / "a/1.png"), str(tmp_path / "b.png")]
    assert len(table.repeated) == ("./a" in text)
    assert read(tmp_path / "table.csv", root="/x", **typed).files == ["/x/a/1.png", "/x/b.png"]


def test_a_quoted_value_may_hold_the_delimiter_and_a_path_may_be_absolute(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", 'path,label\n"/x/a,1.png","ant, red"\n')
    assert read(file).files == ["/x/a,1.png"]
    assert read(file).classes == ["ant, red"]


WRONG: dict[str, tuple[bytes, dict[str, str], str]] = {
    "nothing": (b"", {}, "is empty; begin it with a line such as path,label"),
    "no rows": (b"path,label\n", {}, "lists no images to train with"),
    "only test": (b"path,label,split\na,b,test\n", {}, "lists no images to train with, only test"),
    "no header": (
        b"a.png,ant\nb.png,bee\n", {},
        "has the columns a.png, ant, and none is called path or file or filename; type "
        "data.path_column=NAME, or begin the file with a line such as path,label",
    ),
    "no labels": (
        b"path,species\na,b\n", {}, "none is called label or labels or class; type data.label_",
    ),
    "a misspelt column": (
        b"path,label\na,b\n", {"label_column": "lable"},
        "data.label_column=lable: data.file=FILE has the columns path, label; did you mean label?",
    ),
    "two columns": (
        b"filename,image,label\na,b,c\n", {},
        "filename or image may be the path; type data.path_column=NAME",
    ),
    "a column twice": (b"path,label,label\na,b,c\n", {}, "label or label may be the label"),
    "rows that lack something": (
        b"path,label,split\na,,train\n,x,train\nb,x,train\nc,x,dev\nd,x,\ne,x,y,train\nf,,train\n",
        {}, "2 rows (lines 2, 8) have no label; 1 row (line 3) has no path; 2 rows (lines 5, "
        "6) have an unknown split; 1 row (line 7) has more or fewer values than the first line; "
        "quote one with a delimiter; splits are train, val and test, and not 'dev', ''",
    ),
    "a delimiter in a value": (
        b"path,label\na,1.png,ant\n", {},
        "1 row (line 2) has more or fewer values than the first line; quote one with a del",
    ),
    "two labels": (
        b"path,label\na,x\nb,x\na,y\n", {},
        "1 row (line 4) has an image that an earlier row lists with another label",
    ),
    "two splits": (
        b"path,label,split\na,x,train\nb,x,train\n./a,x,test\n", {},
        "1 row (line 4) has an image that another split lists as well",
    ),
    "Latin 1": ("path,label\na,\xe9\n".encode("latin1"), {}, "is not UTF-8 (invalid continuation"),
    "UTF-16": ("path,label\n".encode("utf-16"), {}, "is not UTF-8"),
    "an endless value": (b'path,label\n"' + b"a" * 200_000, {}, "cannot be read: field larger"),
    "an open quote, which would swallow the rows after it": (
        b'path,label,note\na,x,n\nb,x,"5 inch\nc,y,n\nd,y,n\n', {},
        "cannot be read: line 3 opens a quote that no line closes",
    ),
    "a label of two lines": (
        b'path,label\na,"x\ny"\n', {}, "1 row (line 3) has a label with a line break",
    ),
    "no label anywhere": (
        b"path,label\na,\nb,\n", {"label_separator": "|"}, "data.file=FILE: lists no labels",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "typed", "line"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, text: bytes, typed: dict[str, str], line: str
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(text)
    with pytest.raises(MissingDataError) as raised:
        read(file, **typed)
    assert len(raised.value.lines) == 1
    assert line in str(raised.value).replace(str(file), "FILE")
