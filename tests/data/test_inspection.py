"""What ``check --build`` says of the data, against numbers that are counted in another way."""

import re
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from convtrain.__main__ import main
from convtrain.data import inspection
from convtrain.data.inspection import Seen, find_repeated, inspect_data
from convtrain.data.inspection_tables import inspection_tables
from convtrain.errors import CorruptDataError
from docs.generate.data import PAGE, printed, write_oddities
from tests.conftest import compose, compose_once

PILLOW = int(PIL.__version__.split(".")[0])


def write_noise(root: Path, count: int = 6) -> np.ndarray:
    levels = np.random.default_rng(3).integers(0, 256, (2, count, 8, 8, 3), dtype=np.uint8)
    for name, images in zip(("cat", "dog"), levels, strict=True):
        (root / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{number}.png")
    return levels


def test_a_folder_of_oddities_gives_the_table_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_oddities(tmp_path / "photographs")
    text = printed()
    assert "cannot be used" in text
    if PILLOW >= 13:
        assert f"```text\n{text}```\n" in PAGE.read_text()
        return
    shown = next(p for p in PAGE.read_text().split("```") if "test images also in train" in p)
    means = r"0\.\d{4,}"  # earlier versions of Pillow decode a JPEG a little differently
    assert re.sub(means, "", f"text\n{text}") == re.sub(means, "", shown)
    numbers = [float(number) for number in re.findall(means, shown)]
    assert [float(number) for number in re.findall(means, text)] == pytest.approx(numbers, abs=1e-4)


def test_the_mean_and_deviation_are_those_of_numpy(tmp_path: Path) -> None:
    write_noise(tmp_path / "train")
    test = write_noise(tmp_path / "test", 3)
    config = compose("data=image_folder", f"data.root={tmp_path}", "data.shape=[3,8,8]")
    found = inspect_data(config.data)
    read = config.data.build().train.pixels.double().transpose(0, 1).flatten(1).numpy() / 255
    assert found.mean == pytest.approx(read.mean(1), abs=1e-9)
    assert found.std == pytest.approx(read.std(1), abs=1e-9)
    assert {name: counts.tolist() for name, counts in found.counts.items()} == {
        "train": [5, 5], "val": [1, 1], "test": [3, 3],
    }  # fmt: skip
    assert len(test) == 2
    assert found.files.stored_bytes == 18 * 3 * 8 * 8


def test_data_in_memory_has_the_same_facts() -> None:
    data = compose_once("data=digits").data
    found, splits = inspect_data(data), data.build()
    pixels = splits.train.pixels.numpy() / 255
    assert (found.mean, found.std) == (
        pytest.approx([pixels.mean()], abs=1e-9), pytest.approx([pixels.std()], abs=1e-9),
    )  # fmt: skip
    assert torch.equal(found.counts["test"], splits.test.labels.bincount())
    assert found.files is None


def test_repeated_images_are_counted_across_and_within_splits() -> None:
    #        0        1        2       3      4       5       6 (cannot be used)
    marks = [7, 7, 8, 7, 8, 9, 0, 0]
    splits = ["train", "train", "train", "val", "test", "test", "test", "test"]
    labels = ["cat", "cat", "cat", "dog", "cat", "cat", "cat", "cat"]
    rows = {row.what: (row.images, row.pairs) for row in find_repeated(marks, Seen(splits, labels))}
    assert rows == {
        "repeated with another label": (1, [(0, 3)]),
        "repeated within train": (1, [(0, 1)]),
        "val images also in train": (1, [(0, 3)]),
        "test images also in train": (1, [(2, 4)]),
    }


def test_many_files_are_sampled_unless_all_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise(tmp_path)
    (tmp_path / "dog" / "5.png").write_bytes(b"")  # the sample has the first and the last image
    monkeypatch.setattr(inspection, "MAX_INSPECTED", 10)
    monkeypatch.setattr(inspection, "SAMPLE", 4)
    data = compose("data=image_folder", f"data.root={tmp_path}", "data.shape=[3,8,8]").data
    sample, everything = inspect_data(data), inspect_data(data, every_image=True)
    assert (len(sample.seen.splits), len(everything.seen.splits)) == (4, 12)
    assert sample.images == everything.images == 12
    assert sample.counts["train"].tolist() == everything.counts["train"].tolist()
    assert everything.files.error is not None


def test_the_check_ends_with_the_error_of_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_noise(tmp_path)
    (tmp_path / "cat" / "3.png").write_bytes(b"")
    typed = ["data=image_folder", f"data.root={tmp_path}", "data.shape=[3,8,8]"]
    with pytest.raises(CorruptDataError) as raised:
        compose(*typed).data.build()
    status = main(["check", "--build", *typed])
    out, err = capsys.readouterr()
    assert status == 1
    assert "cat/3.png" in out
    assert err.splitlines()[-1].endswith(str(raised.value))


@pytest.mark.parametrize("several", [False, True])
def test_balanced_sampling_is_no_remedy_for_images_with_several_labels(
    tmp_path: Path, several: bool
) -> None:
    write_noise(tmp_path)
    names = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(6)]
    rare = "cat|dog" if several else "cat"
    rows = [f"{name},{rare if index < 3 else 'dog'}\n" for index, name in enumerate(names)]
    (tmp_path / "l.csv").write_text("path,label\n" + "".join(rows))
    typed = ["data=csv", f"data.file={tmp_path / 'l.csv'}", "data.shape=[3,8,8]"]
    typed += ["data.label_separator='|'", "loss=bce"] * several
    found = inspect_data(compose(*typed).data)
    (line,) = (
        line
        for line in inspection_tables(found, tmp_path, (3, 8, 8))
        if isinstance(line, str) and line.startswith("unbalanced: dog has")
    )
    assert "loss.class_weights=balanced" in line
    assert ("data.sampling=balanced" in line) != several
