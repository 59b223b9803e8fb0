"""Evaluations: the bits of the run's own test, and other data whose classes match by name."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

import convtrain
from convtrain.__main__ import main
from convtrain.assembly import make_data, make_model
from convtrain.config.schema import Config
from convtrain.data.batches import Batches, Normalisation
from convtrain.data.images import Images
from convtrain.data.pixel_file import PixelFile
from convtrain.data.sources.digits import FILE
from convtrain.errors import ConfigError
from convtrain.launch.start import train
from convtrain.training.checkpoint_file import load_checkpoint
from convtrain.use.as_on_devices import DividedBatches
from convtrain.use.class_matching import match_classes, relabel
from convtrain.use.evaluation_arguments import default_name
from tests.conftest import compose

NET = (
    "network.layers=[{Conv2d: {out_channels: 4, kernel_size: 3}}, Flatten, "
    "{Linear: {out_features: %d}}]"
)
TINY = ("trainer=cpu", "callbacks.progress_bar=false", "recorder=off", "logger=csv",
        "scheduler=none", "data.eval_batch_size=50")  # fmt: skip


def write_digits(root: Path, names: dict[int, str], first: int, last: int) -> None:
    """Write some of the digits as images, in a folder for each class."""
    with np.load(FILE) as stored:
        levels, labels = stored["grey_levels"].reshape(-1, 8, 8), stored["labels"]
    for index in range(first, last):
        if (name := names.get(int(labels[index]))) is not None:
            (root / name).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray((levels[index] * 15).astype(np.uint8))
            picture.save(root / name / f"{index:04d}.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    names = dict(enumerate(("zero", "one", "two")))
    write_digits(root / "train", names, 0, 300)
    write_digits(root / "test", names, 300, 700)
    return root


@pytest.fixture(scope="module")
def config(photos: Path) -> Config:
    return compose(*TINY, NET % 3, "data=image_folder", f"data.root={photos}", "data.shape=[1,8,8]",
                   "data.mean=[0.5]", "data.std=[0.25]", "trainer.max_epochs=2",
                   "optimizer.lr=0.05", "metrics=[f1,confusion]",
                   "callbacks.checkpoint.test_with=best",
                   "callbacks.checkpoint.save_top_k=2")  # fmt: skip


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests only add evaluations to it."""
    path = tmp_path_factory.mktemp("runs") / "run"
    train(config, path)
    return path


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = pq.read_table(run / "evaluations" / f"{name}.parquet").to_pylist()
    return read


def logits_of(config: Config, run: Path, name: str, *flips: bool) -> tuple[Any, torch.Tensor]:
    """Compute the mean logits of the test images by the model itself."""
    model, state = make_model(config), load_checkpoint(run / "checkpoints" / name)["state_dict"]
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items()})
    data = make_data(config)
    images = data.normalise(data.splits.test.read(torch.arange(len(data.splits.test))))
    with torch.no_grad():
        found = [model.eval()(images.flip(-1) if flip else images) for flip in flips]
    return data.splits.test.labels, torch.stack(found).mean(0)


def is_same_as_result(run: Path, found: Any) -> bool:
    result = json.loads((run / "result.json").read_text())
    names = [name for name in result if name.startswith("test/")]
    return [repr(found["metrics"][n]) for n in names] == [repr(result[n]) for n in names] != []


def test_on_its_own_data_a_run_gets_the_bits_of_its_result(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [run / "evaluations" / name for name in ("test.json", "test.parquet")]
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert main(["evaluate", str(run)]) == 0
    printed = capsys.readouterr()
    assert "yes, to the last bit" in printed.out
    assert "was trained on" not in printed.out + printed.err
    assert is_same_as_result(run, json.loads(files[0].read_text()))
    assert [file.read_bytes() for file in files] == before


def test_the_validation_of_each_checkpoint_is_that_of_its_epoch(run: Path) -> None:
    with (run / "metrics.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["val/loss"]]
    for path in (run / "checkpoints").glob("best-*.ckpt"):
        (line,) = (line for line in lines if f"step{int(line['step']):06d}" in path.name)
        found = convtrain.evaluate(run, checkpoint=path.name, split="val")
        assert found["metrics"]["val/loss"] == float(line["val/loss"])
        assert (found["checkpoint"], found["split"]) == (path.name, "val")
        assert (run / "evaluations" / f"val-{path.stem}.parquet").is_file()


def test_flip_is_the_mean_of_the_logits_of_both_images(run: Path, config: Config) -> None:
    found = convtrain.evaluate(run, tta="flip", checkpoint="last")
    targets, logits = logits_of(config, run, "last.ckpt", False, True)
    assert found["metrics"]["test/loss"] == pytest.approx(cross_entropy(logits, targets).item())
    expected = logits.softmax(1).max(1)
    read = rows(run, "test-last-flip")
    assert [row["predicted"] for row in read] == expected.indices.tolist()
    assert [row["probability"] for row in read] == pytest.approx(expected.values.tolist())


def test_other_data_is_matched_by_the_names_of_its_classes(
    run: Path, config: Config, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In other folders, which sort otherwise, and while the data of the run is gone."""
    write_digits(tmp_path / "other" / "train", {2: "two", 0: "zero", 1: "eins"}, 0, 100)
    write_digits(tmp_path / "other" / "test", {2: "two", 0: "zero", 1: "eins"}, 300, 700)
    targets, logits = logits_of(config, run, "last.ckpt", False)
    photos.rename(tmp_path / "away")
    try:
        typed = ["evaluate", str(run), f"data.root={tmp_path / 'other'}", "--checkpoint", "last"]
        assert main(typed) == 0
    finally:
        (tmp_path / "away").rename(photos)
    names = json.loads((run / "evaluations" / "test.json").read_text())["class_names"]
    assert names == ["one", "two", "zero"]
    known = targets != names.index("one")
    found = json.loads((run / "evaluations" / "test-other-last.json").read_text())
    assert found["classes"] == {"matched": ["two", "zero"], "unknown": ["eins"], "missing": ["one"]}
    assert (found["images"], found["left_out"]) == (known.sum(), (~known).sum())
    right = (logits.argmax(1) == targets)[known]
    assert found["metrics"]["test/acc"] == right.double().mean().item()
    loss = cross_entropy(logits[known], targets[known])
    assert found["metrics"]["test/loss"] == pytest.approx(loss.item())

    read = rows(run, "test-other-last")  # their order: eins, two, zero
    said = logits.argmax(1)[torch.cat([(targets == label).nonzero()[:, 0] for label in range(3)])]
    assert [row["predicted"] for row in read] == said.tolist()
    assert [row["target"] for row in read].count(None) == found["left_out"]
    with_target = [row for row in read if row["target"] is not None]
    hits = sum(row["target"] == row["predicted"] for row in with_target)
    assert hits / len(with_target) == found["metrics"]["test/acc"]

    shown = capsys.readouterr().out
    assert f"eins: {found['left_out']} images, which no metric counts" in shown
    assert "one: the data has none of them" in shown


def test_all_images_are_those_of_every_split(
    run: Path,
    config: Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also of a folder whose classes have too few images to be divided."""
    write_digits(tmp_path / "few", {0: "zero", 2: "two"}, 0, 3)
    assert main(["evaluate", str(run), f"data.root={tmp_path / 'few'}"]) == 2
    assert "--split all takes all images" in caplog.text
    assert "need at least 3 images of each class" in capsys.readouterr().err
    assert convtrain.evaluate(run, [f"data.root={tmp_path / 'few'}"], split="all")["images"] == 2
    found = convtrain.evaluate(run, split="all", name="everything")
    splits = make_data(config).splits
    assert found["images"] == sum(map(len, splits.images))
    labels = torch.cat([images.labels for images in splits.images]).sort().values
    assert sorted(row["target"] for row in rows(run, "everything")) == labels.tolist()
    assert found["metrics"].keys() == {"all/loss", "all/acc", "all/f1", "all/confusion"}


def test_labels_follow_the_names_whatever_holds_the_pixels(tmp_path: Path) -> None:
    pixels = torch.arange(8, dtype=torch.uint8).view(4, 1, 1, 2)
    (tmp_path / "pixels").write_bytes(bytes(range(8)))
    model, data, labels = ["a", "b", "c"], ["x", "c", "a"], torch.tensor([2, 0, 1, 2])
    classes = match_classes(model, data, "")
    for held in (pixels, PixelFile(tmp_path / "pixels", (1, 1, 2))):
        known, unknown, known_at, unknown_at = relabel(
            Images(held, labels), model, data, classes, "data.root=x"
        )
        assert unknown is not None
        assert (known.labels.tolist(), known_at.tolist()) == ([0, 2, 0], [0, 2, 3])
        assert known.read(torch.arange(3)).equal(pixels[[0, 2, 3]])
        assert (unknown_at.tolist(), unknown.read(torch.tensor([0])).tolist()) == (
            [1],
            [[[[2, 3]]]],
        )

    several = Images(pixels, torch.eye(4)[:, :3])
    names = ["c", "x", "a", "b"]  # x is no label of the model
    found = relabel(
        Images(pixels, torch.eye(4)), model, names, match_classes(model, names, ""), "data.root=x"
    )
    assert found.known.labels.tolist() == torch.eye(4)[:, [2, 3, 0]].tolist()
    with pytest.raises(ConfigError, match=r"data\.root=x: says nothing of the labels b, which"):
        relabel(several, model, data, classes, "data.root=x")


def test_the_parts_of_a_batch_are_those_that_the_devices_got() -> None:
    images = Images(torch.zeros(7, 1, 1, 1, dtype=torch.uint8), torch.arange(7))
    one = Normalisation([0.0], [1.0])
    batches = DividedBatches(images, 3, one, devices=2)
    assert [batch.targets.tolist() for batch in batches] == [[0, 2], [1], [3, 5], [4], [6]]
    by_devices = [Batches(images, 3, one, rank=rank, world_size=2) for rank in range(2)]
    expected = [batch.targets.tolist() for each in zip(*by_devices, strict=True) for batch in each]
    assert [batch.targets.tolist() for batch in batches] == [part for part in expected if part]
    assert len(DividedBatches(images, 3, one, devices=2, limit=0.7)) == 4  # of 2 of 3 batches


def test_the_command_says_that_bits_and_data_are_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    copied = shutil.copytree(run, tmp_path / "copied")
    provenance = json.loads((copied / "provenance.json").read_text())
    (copied / "provenance.json").write_text(json.dumps({**provenance, "data": "0123456789ab"}))
    result = json.loads((copied / "result.json").read_text())
    (copied / "result.json").write_text(json.dumps({**result, "test/loss": 0.5}))
    assert main(["evaluate", str(copied)]) == 0
    assert "no, test/loss was 0.5, is " in capsys.readouterr().out
    assert f"their splits are not those that {copied} was trained on, so that it may" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--split", "tset"],
            "--split tset: choose from test, val, train, all; did you mean test?",
        ),
        (["--checkpoint", "lst"], "--checkpoint lst: RUN has best,"),
        (["--chekpoint"], "--chekpoint: no such option; did you mean --checkpoint?"),
        (["--name", "../x"], "--name ../x: is the name of a file"),
        (["--name", "test", "--tta", "flip"], "--name test: is that of the test at the end"),
        (["optimizer.lr=1"], "optimizer.lr=1: an evaluation changes the data alone"),
        (["data.shape=[1,9,9]"], "data.shape=[1,9,9]: is that of the training"),
        (["data.batch_size=5"], "data.batch_size=5: is of the training; type data.eval_batch_size"),
        (["data.limit=1,2"], "data.limit=1,2: an evaluation takes one value"),
        (["data.limt=5"], "data.limt=5: no such key; did you mean data.limit?"),
        (["data.root=nowhere"], "data.root=nowhere: no such folder"),
        (["data=mnist"], "data.shape=[1, 8, 8]: the images of mnist are [1, 28, 28]"),
        (["data=digits"], "data.root=data: none of its classes, 0, 1"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    run: Path, arguments: Sequence[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), *arguments]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line.replace("RUN", str(run)))


def test_a_damaged_checkpoint_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes()[:-100])
    assert main(["evaluate", str(run), "--checkpoint", str(broken)]) == 1
    assert "damaged" in capsys.readouterr().err
    assert not (run / "evaluations" / "test-broken.json").exists()


def test_names_follow_from_what_is_evaluated() -> None:
    assert default_name([], None, "test", None) == "test"
    assert default_name(["data=image_folder", "data.root=a/b c"], None, "val", None) == "val-b-c"
    assert default_name(["data.limit=5"], "x/last.ckpt", "test", "flip") == "test-limit-5-last-flip"


def test_a_name_that_occurs_twice_has_no_partner() -> None:
    found = match_classes(["a", "b", "c"], ["b", "a", "a", "d"], "data.root=x")
    assert found == {"matched": ["b"], "unknown": ["a", "d"], "missing": ["a", "c"]}
    twice = ["crane", "crane", "kite"]  # of the run itself
    assert match_classes(twice, twice, "")["matched"] == twice
    with pytest.raises(ConfigError, match=r"none of its classes, x, is one of the model's, a"):
        match_classes(["a"], ["x"], "data.root=x")


OWN = """
import torch
from torch import nn
from torch.nn import functional as F

class Temperature(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, logits, targets):
        return F.cross_entropy(logits / self.temperature, targets)

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.linear = nn.Linear(64, num_classes)
        self.register_buffer("noise", torch.randn(64), persistent=False)  # drawn, and not saved

    def forward(self, images):
        return self.linear(images.flatten(1) + self.noise)

class Noise(torch.utils.data.Dataset):
    classes = [f"class {index}" for index in range(10)]

    def __len__(self):
        return 200

    def __getitem__(self, index):
        return torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8), index % 10
"""
WAYS = {
    "nn, last": ["model=nn", "callbacks.checkpoint.test_with=last"],
    "bfloat16": ["trainer.precision=bf16-mixed"],
    "float64": ["trainer.precision=64-true"],
    "channels last": ["trainer.channels_last=true"],
    "torchvision": ["model=torchvision", "model.name=resnet18", "data.limit=64"],
    "a part": ["trainer.limit_test_batches=2", "trainer.limit_val_batches=1"],
    "own parts": ["trust=[ownparts]", "loss=custom", "loss._target_=ownparts.Temperature",
                  "model=custom", "model._target_=ownparts.Net", "data=custom",
                  "data._target_=ownparts.Noise", "data.num_classes=10", "data.shape=[1,8,8]"],
    "other parts": ["data=synthetic", "data.shape=[3,12,12]", "metrics=[auroc,calibration,top5]",
                    "augment.mixup=0.5", "augment.random_crop=2"],
    "two threads": ["trainer.threads=2"],
    "two devices": ["trainer.devices=2", "trainer.strategy=ddp", "data.limit=101"],
    "a part, two devices": ["trainer.devices=2", "trainer.strategy=ddp",
                            "trainer.limit_test_batches=0.5"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_however_a_run_was_trained_its_bits_are_those_of_its_result(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ownparts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    base = ["data=digits", "metrics=[f1,confusion]", "callbacks.checkpoint.test_with=best"]
    layers = [] if {"model=custom", "model=torchvision"}.intersection(WAYS[way]) else [NET % 10]
    run = tmp_path / "run"
    train(compose(*TINY, *base, *layers, *WAYS[way], "trainer.max_epochs=1"), run)
    assert is_same_as_result(run, convtrain.evaluate(run))
    trained = convtrain.load(run, device="cpu")
    weights = load_checkpoint(trained.checkpoint)["state_dict"]
    assert all(
        value.equal(weights[f"model.{n}"]) for n, value in trained.model.state_dict().items()
    )
