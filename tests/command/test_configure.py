"""Wrong configurations: one line each, status 2, no traceback, no torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from convtrain.errors import did_you_mean
from tests.command.typed import check
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
    "graphs that accumulate": (
        ["trainer.compile=max-autotune", "trainer.accumulate_grad_batches=2"],
        ["trainer.compile=max-autotune", "accumulate_grad_batches=2; set it to 1"],
    ),
    "null for a number": (["data.batch_size=null"], ["data.batch_size=null", "integer"]),
    "deleted key": (["~optimizer.lr"], ["optimizer.lr", "missing"]),
    "unreadable override": (["nonsense"], ["nonsense", "key=value"]),
    "nothing": ([""], ["'': cannot be read as key=value"]),
    "no key": (["=3"], ["=3: cannot be read as key=value"]),
    "appended though it is there": (["+seed=3"], ["+seed=3: exists already", "+: seed=3"]),
    "appended choice": (["+model=nn"], ["+model=nn: exists already", "+: model=nn"]),
    "mapping for a list": (["data.shape={a: 1}"], ["data.shape={a: 1}: Cannot merge"]),
    "dangling interpolation": (["optimizer.lr=${nope}"], ["optimizer.lr", "nope"]),
    "missing folder": (["data=image_folder", "data.root=nowhere"], ["data.root=nowhere", "train/"]),
    "run that is not there": (["resume=nowhere"], ["resume=nowhere", "config.yaml"]),
}


@pytest.mark.parametrize(("overrides", "expected"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_configuration_is_one_line(
    overrides: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        check(overrides)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    for fragment in expected:
        assert fragment in shown


def test_all_mistakes_are_reported_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check(["seed=x", "optimizer.lr=-1", "data.bath_size=3"])
    shown = capsys.readouterr().err.splitlines()
    assert [line.split("=")[0] for line in shown] == ["seed", "data.bath_size", "optimizer.lr"]


MANY = {
    "seed": "seed=abc", "optimizer.lr": "optimizer.lr=-5", "epochs": "epochs=1.5", "new": "+new=1",
    "optimizer.betas": "optimizer.betas=[0.9]", "trainer.devices": "trainer.devices=two",
    "modle": "modle=functional", "model": "model=nope", "data.bath_size": "data.bath_size=3",
    "data.num_classes": "data.num_classes=7", "hydra.verbos": "hydra.verbos=true",
    "callbacks.checkpoint.monitor": "callbacks.checkpoint.monitor=val/f1",
    "data.batch_size": "data.batch_size=5000", "+alarm": "+alarm=off", "'nonsense'": "'nonsense'",
}  # fmt: skip


def test_mistakes_of_every_kind_are_reported_together(capsys: pytest.CaptureFixture[str]) -> None:
    """Also what a key does not fit, though others of its section are wrong by themselves."""
    with pytest.raises(SystemExit):
        check(list(MANY.values()))
    shown = capsys.readouterr().err.splitlines()
    assert sorted(re.split("[=:]", line)[0] for line in shown) == sorted(MANY)
    typed = [line for line in shown if not line.startswith("'nonsense'")]
    assert all(line.endswith("[set in: command line]") for line in typed)


TOGETHER: dict[str, list[tuple[str, str]]] = {
    "data and training": [
        ("data.shape=[1,9,9]", "data.shape=[1, 9, 9]: the images of digits are [1, 8, 8]"),
        ("data.classes=null", ""),
        ("data.num_classes=7", "data.num_classes=7: digits has 10 classes"),
        ("augment.random_crop=9", "augment.random_crop=9: must be less than the 9 pixels"),
        ("augment.cutout=10", "augment.cutout=10: must be at most the 9 pixels"),
        ("trainer.devices=65", "data.batch_size=64: is too small for every one of 65 devices"),
        ("callbacks.custom=[{a: 1}]", "callbacks.custom.0={a: 1}: needs a _target_"),
        ("optimizer.lr=inf", "optimizer.lr=.inf: must be a finite number"),
        ("seed=4294967296", "seed=4294967296: must be less than 4294967296"),
    ],
    "batches": [
        ("trainer.limit_val_batches=0.1", "trainer.limit_val_batches=0.1: is less than one of"),
        ("trainer.val_check_interval=22", "trainer.val_check_interval=22: an epoch has 21 batch"),
        ("model=nope", "model=nope: no such choice; choose from custom, functional, nn, "),
        ("optimizer=admw", "optimizer=admw: no such choice; did you mean adamw?"),
        ("optimizer.lr=-inf", "optimizer.lr=-.inf: must be"),
        ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]: must have at least 2 items"),
        ("scheduler.gamma=0.5", "scheduler.gamma=0.5: no such key here; it belongs to scheduler=s"),
    ],
    "no validation": [
        ("trainer.limit_val_batches=0", ""),
        ("callbacks.early_stopping.patience=3", "callbacks.early_stopping.monitor=val/loss: does"),
        ("scheduler=plateau", "scheduler.monitor=val/loss: does not exist"),
        ("data=mnist", ""),
        ("data.limit=50", "data.batch_size=64: larger than the training data of 50 images that d"),
    ],
    "Hydra's own": [
        ("hydra.verbos=true", "hydra.verbos=true: no such key; did you mean hydra.verbose?"),
        ("hydra.launcher.setup=3", "hydra.launcher.setup=3: no such key of this launcher; it has"),
        ("hydra.verbose=3", "hydra.verbose=3: must be true, false, or the names of loggers"),
        ("hydra.job.num=abc", "hydra.job.num=abc: Value 'abc' of type 'str' could not be"),
        ("hydra/launchr=basic", "hydra/launchr=basic: no such group of choices"),
        ("model@foo=nn", "model@foo=nn: no such group of choices"),
        ("~data.nope", "~data.nope: there is no such key to delete"),
        ("experiment=[mnist,conv2d_nn]", "experiment=[mnist,conv2d_nn]: no such choice"),
        ("debug=null", "debug=null: no such choice; choose from"),
        ("seed=" + "{a:" * 500 + "1" + "}" * 500, "seed={a:{a:"),
    ],
    "paths": [
        ("network.name=../../x", "network.name=../../x: has characters that are not allowed"),
        ("hydra.job.name=../x", "hydra.job.name=../x: must stay inside the run's directory"),
        ("hydra.output_subdir=/tmp", "hydra.output_subdir=/tmp: must stay inside"),
        ("hydra.sweep.subdir=../${hydra.job.num}", "hydra.sweep.subdir=../"),
        (f"hydra.run.dir={__file__}/run", f"hydra.run.dir={__file__}/run: "),
        ("data=image_folder", ""),
        ("data.root=" + "a" * 3000, "data.root=" + "a" * 100),
    ],
}


@pytest.mark.parametrize("mistakes", TOGETHER.values(), ids=TOGETHER.keys())
def test_mistakes_side_by_side_have_a_line_each(
    mistakes: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        check([override for override, _ in mistakes])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err.splitlines()
    expected = [start for _, start in mistakes if start]
    for start in expected:
        assert [line for line in shown if line.startswith(start)], (start, shown)
    assert len(shown) == len(expected), shown


def test_a_mistake_is_traced_to_the_file_below_the_one_that_was_chosen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        check(["data=mnist", "data.limit=50"])
    assert "[set in: configs/data/_base.yaml]" in capsys.readouterr().err


ALONE = {
    "run": (["resume=" + "a" * 5000], "does not exist; give the directory of a run"),
    "choice of Hydra's": (["hydra/launcher=nope"], "hydra/launcher=nope: no such choice"),
    "folder of configurations": (["--config-dir", "nowhere"], "--config-dir=nowhere: no such f"),
    "main file": (["--config-name", "nope"], "primary config 'nope'"),
    "pickled job": (["--experimental-rerun", "job.pickle"], "a pickle can run any code"),
}


@pytest.mark.parametrize(("arguments", "says"), ALONE.values(), ids=ALONE.keys())
def test_what_keeps_everything_from_being_read_is_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        check(arguments)
    assert stopped.value.code == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert says in shown


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
        check(["--config-dir", str(tmp_path), "experiment=mine"])
    (shown,) = capsys.readouterr().err.splitlines()
    assert expected in shown


def test_a_key_that_no_file_has_is_added_if_the_schema_knows_it() -> None:
    arguments = ["optimizer.lr=0.2", "network.prune={a: {}}", "model=nn"]
    checked = check(arguments)
    assert checked.config.network.prune == {"a": {}}
    assert list(checked.composed.hydra.overrides.task) == arguments


def test_the_traceback_is_shown_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit) as stopped:
        check(["seed=abc"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert "ConfigError: seed=abc: must be an integer" in shown


def test_every_value_of_a_sweep_is_checked_before_the_first_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        check(["-m", "optimizer.lr=0.1,0.01,-1", "model=nn,functional"])
    assert "optimizer.lr=-1" in capsys.readouterr().err


SWEEPS = {
    "model=glob(f*)": "model=glob(f*): list the values of a sweep: model=functional",
    "seed=glob(*)": "seed=glob(*): list the values of a sweep: seed=A,B",
    "seed=range(1,1)": "seed=range(1,1): no value",
    "seed=range(1,9,0)": "seed=range(1,9,0): range() arg 3 must not be zero",
    "optimizer.lr=range(0.1,1,0.0)": "optimizer.lr=range(0.1,1,0.0): Invalid range values",
    "data.batch_size=shuffle(range(1,2000000000))": "data.batch_size=shuffle(range(1,2000000000)): "
    "more than 1,000 values",
}


def test_values_that_cannot_be_listed_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        check(["-m", *SWEEPS, "seed=x"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == len(SWEEPS) + 1
    for line, start in zip(shown, [*SWEEPS.values(), "seed=x"], strict=True):
        assert line.startswith(start)


def test_a_group_that_may_be_empty_may_be_left_out() -> None:
    assert check(["~experiment", "~debug"]).config.seed == 1


def test_a_mistake_is_traced_to_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = tmp_path / "experiment"
    extra.mkdir()
    (extra / "mine.yaml").write_text("# @package _global_\nseed: -3\n")
    with pytest.raises(SystemExit):
        check(["--config-dir", str(tmp_path), "experiment=mine"])
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
