"""``convtrain predict``: any number of image files with a trained model, to CSV or a table."""

import csv
import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import convtrain
from convtrain.__main__ import main, run_verb
from convtrain.assembly import make_data
from convtrain.config.image_files import images_in, sorted_files, sorted_names
from convtrain.data import file_batches
from convtrain.errors import ConvtrainError, TrainingError
from convtrain.process.signals import Interrupted
from convtrain.run.directory import Run
from convtrain.use import predict_files as predicting
from convtrain.use.image_paths import image_paths
from convtrain.use.predict_files import FilePrediction, predict_files
from convtrain.use.predictions_csv import predictions_csv
from convtrain.use.trained import Trained
from tests.conftest import REPOSITORY, compose

TINY = ("data.limit=256", "logger=none", "scheduler=none", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits; tests only read it."""
    from convtrain.pipeline import train

    path = tmp_path_factory.mktemp("predict") / "run"
    overrides = [*TINY, "trainer=cpu", "callbacks.progress_bar=false"]
    train(compose(*overrides), path, overrides)
    return path


@pytest.fixture(scope="module")
def trained(run: Path) -> Trained:
    return convtrain.load(run, device="cpu")


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """The test images of the run, uint8."""
    images = make_data(compose(*TINY, "trainer=cpu")).splits.test.pixels
    assert isinstance(images, torch.Tensor)
    return images


@pytest.fixture(scope="module")
def photographs(pixels: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images as files LABEL/INDEX.png, so that their order differs from the split's."""
    folder = tmp_path_factory.mktemp("photographs")
    labels = make_data(compose(*TINY, "trainer=cpu")).splits.test.labels.tolist()
    for index, label in enumerate(labels):
        path = folder / str(label) / f"{index:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[index, 0].numpy()).save(path)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_csv_has_the_accuracy_of_the_runs_own_test(
    run: Path, photographs: Path, tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "new" / "predictions.csv"
    assert main(["predict", str(run), str(photographs), "--csv", str(out)]) == 0
    rows, result = rows_of(out), Run(run).read_result()
    assert result is not None
    assert [row["path"] for row in rows] == sorted(map(str, photographs.rglob("*.png")))
    right = sum(Path(row["path"]).parent.name == row["label"] for row in rows)
    assert right / len(rows) == result["test/acc"]
    for row in rows:
        ranked = [float(row["probability"]), *(float(row[f"probability_{n}"]) for n in (2, 3, 4))]
        assert ranked == sorted(ranked, reverse=True)
    assert list(out.parent.iterdir()) == [out]
    assert f"{out}: {len(rows)} images" in capfd.readouterr().out


@pytest.mark.parametrize("workers", [0, 2])
def test_the_bits_are_those_of_the_model_in_batches_of_the_same_size(
    trained: Trained, photographs: Path, pixels: torch.Tensor, workers: int
) -> None:
    paths = sorted(map(str, photographs.rglob("*.png")), key=lambda path: path[-7:])  # the split's
    for size in (None, 7):
        batches = pixels.split(size or trained.config.data.eval_batch_size)
        expected = torch.cat([trained.probabilities(trained.logits(batch)) for batch in batches])
        found = predict_files(trained, iter(paths), topk=10, batch_size=size, workers=workers)
        for each, row in zip(itertools.chain(*found), expected, strict=True):
            assert dict(each.top) == dict(zip(trained.classes, row.tolist(), strict=True))
            assert each.labels == [(str(int(row.argmax())), float(row.max()))]


def test_a_broken_image_is_a_row_and_the_status_is_1(
    run: Path, photographs: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = sorted(photographs.rglob("*.png"))[:70]  # more than one part of a batch
    names = ['a,b".png', "c\nd.png", "e\rf.png", "=1+1.png", "ü[1].png"]
    for path, name in zip(good, names, strict=False):
        Path(name).write_bytes(path.read_bytes())
    Path("broken.png").write_bytes(b"no image")
    paths = [*names, "broken.png", *map(str, good)]
    assert main(["predict", str(run), *paths, "--csv", "-", "--topk", "1"]) == 1
    output = capfd.readouterr()
    rows = list(csv.DictReader(io.StringIO(output.out, newline="")))
    assert list(rows[0]) == ["path", "label", "probability", "error"]
    assert [row["path"] for row in rows] == [
        "./=1+1.png" if path == "=1+1.png" else path for path in paths
    ]
    assert [row["error"] for row in rows if row["error"]] == [
        "cannot be decoded: cannot identify image file; remove or replace it"
    ]
    assert not rows[5]["label"]
    assert [row["label"] for row in rows[:5]] == [row["label"] for row in rows[6:11]]
    assert output.err.splitlines() == [
        "1 image cannot be used: broken.png: cannot be decoded: cannot identify image file; remove "
        "or replace it"
    ]


def test_without_csv_it_shows_a_table(run: Path, photographs: Path, capfd: Any) -> None:
    path = next(photographs.rglob("*.png"))
    assert main(["predict", str(run), str(path), str(path), "--topk", "2"]) == 0
    output = capfd.readouterr().out
    assert output.count(str(path)) == 2
    assert "2 images" in output


def test_files_are_read_only_as_fast_as_they_are_predicted(
    trained: Trained, photographs: Path
) -> None:
    path, taken = str(next(photographs.rglob("*.png"))), 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for taken in itertools.count(1):
            yield path if taken % 3 else "lost.png"

    for workers in (0, 2):
        taken = 0
        batches = predict_files(trained, endless(), batch_size=10, workers=workers)
        for batch in itertools.islice(batches, 40):
            assert [p.error for p in batch].count("No such file or directory") in (3, 4)
        assert 400 <= taken < 600


def test_a_killed_decoder_is_one_line(
    trained: Trained, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_batches, "decode", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(TrainingError, match="was killed here"):
        list(predict_files(trained, map(str, photographs.rglob("*.png")), workers=1))


def listed(*named: str, stdin: bytes = b"") -> list[str]:
    return list(image_paths(named, io.BufferedReader(io.BytesIO(stdin)), Counter()))


def test_names_stand_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = ["b/1.png", "b.png", "b/2.txt", "a/x/1.JPG", "a/2.png", "a/.hidden.png", "a[1].png"]
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    Path("a/link").symlink_to(tmp_path / "b")  # is not entered
    tree = ["./a/2.png", "./a/x/1.JPG", "./a[1].png", "./b/1.png", "./b.png"]
    assert listed(".") == tree
    assert listed("b", "b/2.txt", "a/2.png") == ["b/1.png", "b/2.txt", "a/2.png"]
    assert listed("a[1].png", "*.png") == ["a[1].png", "a[1].png", "b.png"]
    assert listed("a/*/*.JPG") == ["a/x/1.JPG"]
    assert listed("**/*.png") == ["a/2.png", "a[1].png", "b/1.png", "b.png"]
    assert listed("[ab]") == ["a/2.png", "a/x/1.JPG", "b/1.png"]  # folders match
    assert listed(f"{tmp_path}/**") == [f"{tmp_path}/{path[2:]}" for path in tree]
    assert listed("-", stdin=b"b/2.txt\r\n\nb\nlost *.png") == ["b/2.txt", "b/1.png", "lost *.png"]
    assert listed("-", stdin=b"c\nd.png\0b.png\0") == ["c\nd.png", "b.png"]

    left_out = Counter[str]()
    list(image_paths(["."], io.BufferedReader(io.BytesIO()), left_out))
    assert left_out == {".txt": 1, "linked folder": 1}


def test_files_have_the_order_of_training_data(tmp_path: Path) -> None:
    for name in ("a/b", "a.x/b", "a\x01/b", "a b/c", "B/é"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").touch()
    (tmp_path / "a-.png").touch()
    found = [Path(path) for path, is_image in sorted_files(str(tmp_path)) if is_image]
    assert found == images_in(tmp_path, tmp_path)[0]
    names = ["b\nc", "a\0", "\udcff", "é", *(f"{n:02d}" for n in range(20))]
    for most in (3, 4, 100):
        assert list(sorted_names(names, most)) == sorted(names)


def test_of_several_labels_all_that_are_present_are_in_a_cell(tmp_path: Path) -> None:
    top = [("cat", 0.9), ("dog", 0.75), ("fox", 0.25)]
    predictions = [
        FilePrediction("a", top[:2], top),
        FilePrediction("b", [], top),
        FilePrediction("c", [], [], "x"),
    ]
    with predictions_csv(str(tmp_path / "p.csv"), 2, multi_label=True) as written:
        written.add(predictions)
    ranked = {"label_1": "cat", "probability_1": "0.9", "label_2": "dog", "probability_2": "0.75"}
    present = {"labels": "cat;dog", "probabilities": "0.9;0.75"}
    none, empty = dict.fromkeys(present, ""), dict.fromkeys(ranked, "")
    assert rows_of(tmp_path / "p.csv") == [
        {"path": "a", **present, **ranked, "error": ""},
        {"path": "b", **none, **ranked, "error": ""},
        {"path": "c", **none, **empty, "error": "x"},
    ]


def test_a_file_has_its_name_once_it_is_complete(
    run: Path, photographs: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, part = tmp_path / "p.csv", tmp_path / "p.csv.part"
    out.write_text("older")
    decode = predicting.decode_batches

    def stopped(*args: Any, **options: Any) -> Iterator[Any]:
        yield next(decode(*args, **options))
        assert len(rows_of(part)) == 8  # can be read while it grows
        again = ["predict", str(run), str(photographs), "--csv", str(out)]
        assert main(again) == 2  # another one would mix both
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(predicting, "decode_batches", stopped)
    line = ["predict", str(run), str(photographs), "--csv", str(out), "--batch-size", "8"]
    assert main(line) == 130
    assert out.read_text() == "older"
    errors = capfd.readouterr().err.splitlines()
    assert errors == [
        f"--csv {out}: another process is writing it",
        f"stopped by SIGINT after 8 images; {part} has their rows",
    ]
    monkeypatch.undo()
    assert main(line) == 0
    assert len(rows_of(out)) == len(list(photographs.rglob("*.png")))
    assert not part.exists()


WRONG = {
    "a lost file": (["{photographs}", "{empty}/lost.png"], "lost.png: there is no such file"),
    "a near name": (["{photographs}/00"], "/00: there is no such file or folder; did you mean 0?"),
    "an empty folder": (["{empty}"], "{empty}: no images there"),
    "other files": (["{run}"], "{run}: no images there, only "),
    "a glob": (["{empty}/*.png"], "{empty}/*.png: no images there"),
    "topk": (["{photographs}", "--topk", "0"], "--topk 0: choose 1 or more"),
    "batch size": (["{photographs}", "--batch-size", "-1"], "--batch-size -1: choose 1 or more"),
    "a folder": (["{photographs}", "--csv", "{run}/config.yaml/p.csv"], "p.csv: cannot be written"),
    "a checkpoint": (["{photographs}", "--checkpoint", "lost"], "--checkpoint lost: {run} has "),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_predicted_is_one_line(
    case: str, run: Path, photographs: Path, tmp_path: Path, capfd: Any
) -> None:
    places = {"run": run, "photographs": photographs, "empty": tmp_path}
    typed, line = WRONG[case]
    assert main(["predict", str(run), *(word.format(**places) for word in typed)]) == 2
    output = capfd.readouterr()
    assert line.format(**places) in output.err
    assert output.err.count("\n") == 1
    assert not output.out


def test_a_run_without_checkpoints_is_one_line(
    run: Path, photographs: Path, tmp_path: Path
) -> None:
    for name in ("config.yaml", "overrides.yaml", "provenance.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(ConvtrainError, match="no checkpoints"):
        run_verb(["predict", str(tmp_path), str(photographs)])


@pytest.mark.slow
def test_ctrl_c_ends_it_with_one_line(run: Path, photographs: Path, tmp_path: Path) -> None:
    path, out = next(photographs.rglob("*.png")), tmp_path / "p.csv"
    words = [sys.executable, "-m", "convtrain", "predict", str(run), "-", "--csv", str(out)]
    process = subprocess.Popen(
        words, cwd=REPOSITORY, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    assert process.stdin is not None
    part = tmp_path / "p.csv.part"
    while not (part.exists() and part.stat().st_size):
        process.stdin.write(f"{path}\n".encode() * 100)
        process.stdin.flush()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not printed
    assert err.startswith(b"stopped by SIGINT after ")
    assert err.count(b"\n") == 1
    assert not out.exists()


def test_a_glob_among_others_that_matches_nothing_is_refused(
    run: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not left out in silence; also ``data.value_range=[0,255]`` is a glob."""
    assert main(["predict", str(run), str(photographs), "data.value_range=[0,255]"]) == 2
    said = "data.value_range=[0,255]: there is no image that matches\n"
    assert capsys.readouterr().err == said
