"""Wrong configurations: one line each, status 2, no traceback, no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from convtrain.config.check import check_command_line
from convtrain.errors import did_you_mean
from tests.conftest import REPOSITORY, compose

WRONG = {
    "text for a number": (["seed=abc"], ["seed=abc", "integer"]),
    "below the range": (
        ["optimizer.lr=-5"],
        ["optimizer.lr=-5", "greater than 0", "learning rate"],
    ),
    "above the range": (["optimizer.momentum=1.5"], ["optimizer.momentum=1.5", "less than 1"]),
    "fraction for a count": (["trainer.max_epochs=1.5"], ["trainer.max_epochs=1.5", "integer"]),
    "key of another section": (
        ["max_epochs=3"],
        ["max_epochs", "did you mean trainer.max_epochs?"],
    ),
    "added key": (["+new=1"], ["new=1", "no such key"]),
    "short list": (
        ["optimizer=adam", "optimizer.betas=[0.9]"],
        ["optimizer.betas=[0.9]", "at least 2"],
    ),
    "neither number nor auto": (["trainer.devices=two"], ["trainer.devices=two", "'auto'"]),
    "misspelt group": (["modle=functional"], ["modle=functional", "did you mean model?"]),
    "unknown choice": (["model=nope"], ["model=nope", "functional, nn"]),
    "misspelt choice": (["network=lenett"], ["network=lenett", "did you mean lenet?"]),
    "misspelt key": (["data.bath_size=3"], ["did you mean data.batch_size?"]),
    "unknown experiment": (["experiment=nope"], ["experiment=nope", "conv2d_functional"]),
    "sweep without -m": (["optimizer.lr=0.1,0.2"], ["optimizer.lr=0.1,0.2", "add -m"]),
    "classes that do not match": (["data.num_classes=7"], ["data.num_classes=7", "10 names"]),
    "classes of another dataset": (
        ["data.num_classes=7", "data.classes=null"],
        ["data.num_classes=7", "digits has 10 classes"],
    ),
    "images of another dataset": (["data.shape=[1,9,9]"], ["data.shape=[1, 9, 9]", "[1, 8, 8]"]),
    "batch larger than the data": (
        ["data.batch_size=1296"],
        ["data.batch_size=1296", "1295 images", "set data.batch_size=1295"],
    ),
    "batch larger than what is left": (
        ["data=mnist", "data.limit=50"],
        ["data.batch_size=64", "50 images that data.limit leaves", "data/_base.yaml"],
    ),
    "fewer images than devices": (
        ["data.batch_size=2", "trainer.devices=3"],
        ["data.batch_size=2", "3 devices", "trainer.devices=3"],
    ),
    "too few images for a split": (
        ["data=synthetic", "data.train_size=19"],
        ["data.train_size=19", "at least 20", "data.num_classes=10"],
    ),
    "part of no batch": (
        ["trainer.limit_val_batches=0.1"],
        ["trainer.limit_val_batches=0.1", "less than one of the 1 batches"],
    ),
    "validation after the epoch": (
        ["trainer.val_check_interval=22"],
        ["trainer.val_check_interval=22", "an epoch has 21 batches"],
    ),
    "unknown monitor": (
        ["callbacks.checkpoint.monitor=val/f1"],
        ["callbacks.checkpoint.monitor=val/f1", "'val/loss' or 'val/acc'"],
    ),
    "early stopping without validation": (
        ["trainer.limit_val_batches=0", "callbacks.early_stopping.patience=3"],
        ["callbacks.early_stopping.monitor=val/loss", "does not exist", "callbacks/default.yaml"],
    ),
    "plateau without validation": (
        ["trainer.limit_val_batches=0", "scheduler=plateau"],
        ["scheduler.monitor=val/loss", "does not exist", "scheduler/plateau.yaml"],
    ),
    "crop beyond the image": (
        ["augment.random_crop=8"],
        ["augment.random_crop=8", "less than the 8 pixels"],
    ),
    "infinite": (["optimizer.lr=inf"], ["optimizer.lr=.inf", "finite"]),
    "key of another choice": (
        ["optimizer.betas=[0.9,0.99]"],
        ["optimizer.betas=[0.9, 0.99]", "it belongs to optimizer=adam, adamw"],
    ),
    "callback without a target": (
        ["callbacks.custom=[{a: 1}]"],
        ["callbacks.custom.0", "_target_"],
    ),
    "misspelt key of Hydra's": (["hydra.verbos=true"], ["did you mean hydra.verbose?"]),
    "wrong value of Hydra's": (["hydra.job.num=abc"], ["hydra.job.num=abc", "Integer"]),
    "wrong group of Hydra's": (["hydra/launchr=basic"], ["hydra/launchr=basic", "no such group"]),
    "wrong choice of Hydra's": (["hydra/launcher=nope"], ["hydra/launcher=nope", "choose from"]),
    "group in another place": (["model@foo=nn"], ["model@foo=nn", "no such group"]),
    "several choices": (["experiment=[mnist,conv2d_nn]"], ["experiment=[mnist,conv2d_nn]"]),
    "no choice": (["data=null"], ["data=null", "choose from"]),
    "deleting nothing": (["~data.nope"], ["~data.nope", "no such key to delete"]),
    "without end": (["seed=" + "{a:" * 500 + "1" + "}" * 500], ["cannot be read as key=value"]),
    "long name of a run": (["resume=" + "a" * 5000], ["does not exist"]),
    "long name of a folder": (
        ["data=image_folder", "data.root=" + "a" * 3000],
        ["data.root=", "name too long"],
    ),
    "name that leads elsewhere": (["network.name=../../x"], ["network.name=../../x", "characters"]),
    "log that leads elsewhere": (["hydra.job.name=../x"], ["hydra.job.name=../x", "stay inside"]),
    "jobs that lead elsewhere": (
        ["hydra.sweep.subdir=../${hydra.job.num}"],
        ["hydra.sweep.subdir=", "stay inside"],
    ),
    "directory in a file": (
        [f"hydra.run.dir={__file__}/run"],
        ["hydra.run.dir=", "test_check.py is a file"],
    ),
    "directory that cannot be made": (
        ["hydra.run.dir=/proc/no/run"],
        ["/proc/no/run cannot be a directory"],
    ),
    "no folder of configurations": (
        ["--config-dir", "nowhere"],
        ["--config-dir=nowhere", "folder"],
    ),
    "no such main file": (["--config-name", "nope"], ["primary config 'nope'"]),
    "pickled job": (["--experimental-rerun", "job.pickle"], ["a pickle can run any code"]),
    "means that do not match": (
        ["data.mean=[0.1,0.2]"],
        ["data.mean=[0.1, 0.2]", "has 2 values", "1 channel;"],
    ),
    "nesterov alone": (
        ["optimizer=sgd_momentum", "optimizer.momentum=0"],
        ["optimizer.nesterov=true", "needs optimizer.momentum"],
    ),
    "null for a number": (["data.batch_size=null"], ["data.batch_size=null", "integer"]),
    "deleted key": (["~optimizer.lr"], ["optimizer.lr", "missing"]),
    "unreadable override": (["nonsense"], ["nonsense", "key=value"]),
    "dangling interpolation": (["optimizer.lr=${nope}"], ["optimizer.lr", "nope"]),
    "missing folder": (["data=image_folder", "data.root=nowhere"], ["data.root=nowhere", "train/"]),
    "run that is not there": (["resume=nowhere"], ["resume=nowhere", "config.yaml"]),
}


@pytest.mark.parametrize(("overrides", "expected"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_configuration_is_one_line(
    overrides: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        check_command_line(overrides)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    for fragment in expected:
        assert fragment in shown


def test_all_mistakes_are_reported_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check_command_line(["seed=x", "optimizer.lr=-1", "data.bath_size=3"])
    shown = capsys.readouterr().err.splitlines()
    assert [line.split("=")[0] for line in shown] == ["seed", "data.bath_size", "optimizer.lr"]


NINE = {
    "seed": "seed=abc", "optimizer.lr": "optimizer.lr=-5", "epochs": "epochs=1.5", "new": "+new=1",
    "optimizer.betas": "optimizer.betas=[0.9]", "trainer.devices": "trainer.devices=two",
    "modle": "modle=functional", "model": "model=nope", "data.bath_size": "data.bath_size=3",
    "data.num_classes": "data.num_classes=7", "hydra.verbos": "hydra.verbos=true",
    "callbacks.checkpoint.monitor": "callbacks.checkpoint.monitor=val/f1",
}  # fmt: skip


def test_mistakes_of_every_kind_are_reported_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check_command_line(list(NINE.values()))
    shown = capsys.readouterr().err.splitlines()
    assert {line.split("=")[0] for line in shown} == set(NINE)
    assert all(line.endswith("[set in: command line]") for line in shown)


BROKEN = {
    "not closed": (b"seed: [1\n", "line 3: cannot be read"),
    "object": (b"seed: !!python/object/apply:os.system [id]\n", "python/object/apply:os.system"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "list": (b"- 1\n", "experiment/mine"),
    "deep": (b"seed: " + b"[" * 1200 + b"]" * 1200, "too deep"),
    "unknown choice": (b"defaults:\n  - override /model: nope\n", "model=nope: no such choice"),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes, expected: str
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(b"# @package _global_\n" + text)
    with pytest.raises(SystemExit):
        check_command_line(["--config-dir", str(tmp_path), "experiment=mine"])
    (shown,) = capsys.readouterr().err.splitlines()
    assert expected in shown


def test_a_key_that_no_file_has_is_forced_on_hydra_if_the_schema_knows_it() -> None:
    arguments = ["optimizer.lr=0.2", "network.parametrize={}", "model=nn"]
    expected = ["optimizer.lr=0.2", "++network.parametrize={}", "model=nn"]
    assert check_command_line(arguments) == expected
    assert check_command_line(["-m", "seed=3", "model=nn,functional"])[1] == "seed=3"


def test_the_traceback_is_shown_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit) as stopped:
        check_command_line(["seed=abc"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert "ConfigError: seed=abc: must be an integer" in shown


def test_every_value_of_a_sweep_is_checked_before_the_first_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        check_command_line(["-m", "optimizer.lr=0.1,0.01,-1", "model=nn,functional"])
    assert "optimizer.lr=-1" in capsys.readouterr().err


def test_a_mistake_is_traced_to_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = tmp_path / "experiment"
    extra.mkdir()
    (extra / "mine.yaml").write_text("# @package _global_\nseed: -3\n")
    with pytest.raises(SystemExit):
        check_command_line(["--config-dir", str(tmp_path), "experiment=mine"])
    assert "mine.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["seed=abc"]], ids=str)
def test_answers_come_without_importing_torch(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "train.py", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "hydra" in imported
    assert not imported & {"torch", "torchvision", "pytorch_lightning", "numpy", "sklearn"}
    assert done.returncode == (2 if arguments == ["seed=abc"] else 0)
    assert "Traceback" not in done.stderr


def test_an_override_reaches_the_configuration() -> None:
    config = compose("optimizer=adam", "optimizer.lr=0.5", "data.batch_size=7")
    assert (config.optimizer.name, config.optimizer.lr, config.data.batch_size) == ("adam", 0.5, 7)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("Conv2D", "; did you mean Conv2d?"), ("ReLu", "; did you mean ReLU?"), ("xyz", "")],
)
def test_suggestions(wrong: str, hint: str) -> None:
    assert did_you_mean(wrong, ["Conv2d", "ReLU", "Linear"]) == hint
