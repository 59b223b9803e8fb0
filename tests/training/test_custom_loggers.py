"""Loggers that are named by ``_target_``: what they get, and how they go on after a resume."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import loggers as lightnings

from convtrain.config.groups.logger import NEEDED
from convtrain.config.targets import check_targets
from convtrain.errors import ConfigError
from convtrain.pipeline import train as run
from tests.conftest import Train, compose

OWN = '''
import json, os
from pytorch_lightning.loggers import Logger

class Lines(Logger):
    """Appends a line of JSON for each call; ``id`` is that of the service which it stands for."""

    def __init__(self, save_dir: str, file: str = "lines.jsonl", id: str | None = None,
                 fails: str = ""):
        super().__init__()
        self.path, self.fails = os.path.join(save_dir, file), fails
        self._version = id or "made-up"
        self._write(["made", id])

    name = "lines"

    @property
    def version(self):
        return self._version

    def _write(self, entry):
        with open(self.path, "a") as file:
            file.write(json.dumps(entry) + "\\n")

    def log_hyperparams(self, params):
        if self.fails == "start":
            raise ConnectionError("no such server")
        self._write(["hyperparameters", params["optimizer"]["lr"], params["seed"]])

    def log_metrics(self, metrics, step=None):
        self._write([step, sorted(metrics)])
'''


@pytest.fixture
def own_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "ownlogger.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("ownlogger", None)


NAMED = ("logger=custom", "logger._target_=ownlogger.Lines", "trust=[ownlogger]")
LAST_EPOCH = "trainer.limit_train_batches=2"


def entries(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.usefixtures("own_logger")
def test_it_gets_the_settings_once_and_every_metric_and_continues(
    train: Train, tmp_path: Path
) -> None:
    second = "logger.loggers=[{_target_: pytorch_lightning.loggers.CSVLogger, name: b}]"
    train(*NAMED, second, LAST_EPOCH, "recorder=off")
    made, hyperparameters, *logged = entries(tmp_path / "run" / "lines.jsonl")
    assert made == ["made", None]
    assert hyperparameters == ["hyperparameters", 0.03, 1]
    assert [step for step, names in logged if "test/loss" in names] == [2]
    assert {name for _, names in logged for name in names} >= {"train/loss", "val/acc", "lr"}
    lightnings_own = tmp_path / "run" / "b" / "version_0"
    assert "val/loss" in (lightnings_own / "metrics.csv").read_text()
    assert "momentum" in (lightnings_own / "hparams.yaml").read_text()

    resumed = [f"resume={tmp_path / 'run'}", "trainer.max_epochs=2"]
    run(compose(*resumed), tmp_path / "run", resumed)
    again, *later = entries(tmp_path / "run" / "lines.jsonl")[2 + len(logged) :]
    assert again == ["made", "made-up"]  # the version that it had
    assert [step for step, names in later if "test/loss" in names] == [4]


@pytest.mark.usefixtures("own_logger")
def test_a_logger_that_cannot_start_is_one_line(train: Train) -> None:
    with pytest.raises(ConfigError) as raised:
        train(*NAMED, "logger.fails=start", LAST_EPOCH)
    assert str(raised.value).startswith(
        "logger._target_=ownlogger.Lines: cannot start: ConnectionError: no such server (ownlogger"
    )


@pytest.mark.usefixtures("own_logger")
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ([*NAMED, "logger.fille=a"], "logger.fille=a: Lines has no such argument; did you mean fi"),
        ([*NAMED, "logger.file=3"], "logger.file=3: must be a word"),
        (
            ["logger.tensorbord=false"],
            "logger.tensorbord=false: no such key; did you mean logger.t",
        ),
        (["logger.loggers=[{a: 1}]"], "logger.loggers.0={a: 1}: needs a _target_, such as"),
        (
            ["logger=custom", "logger._target_=torch.nn.Linear"],
            "logger._target_=torch.nn.Linear: not allowed",
        ),
        (
            ["logger=wandb"],
            "logger._target_=pytorch_lightning.loggers.WandbLogger: wandb is not in",
        ),
    ],
)
def test_a_mistake_is_a_line_before_any_data_is_read(
    typed: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convtrain.config.groups.logger.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as raised:
        check_targets(compose(*typed))
    assert str(raised.value).startswith(line)


def test_each_logger_of_lightning_needs_no_package_or_has_its_command() -> None:
    own = {"CSVLogger", "Logger", "TensorBoardLogger"}
    assert {*own, *NEEDED} == set(lightnings.__all__)
