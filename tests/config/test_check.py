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
