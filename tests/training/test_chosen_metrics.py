"""Metrics by choice: against formulas by hand over all images, wherever they are shown."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics import classification

from convtrain.assembly import make_data, make_model
from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_command
from convtrain.config.metrics import known_mode, name_of
from convtrain.config.targets import check_targets
from convtrain.errors import ConfigError
from convtrain.run.directory import Run
from convtrain.run.report import print_report
from convtrain.training.checkpoint_file import load_checkpoint
from convtrain.training.objectives import make_metrics
from tests.conftest import Train, compose

SOURCE = """
import torch
from torchmetrics import Metric

class Confidence(Metric):
    higher_is_better = True

    def __init__(self, power: int = 1) -> None:
        super().__init__()
        self.power = power
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities, targets):
        self.total += (probabilities.max(1).values.double() ** self.power).sum()
        self.count += len(targets)

    def compute(self):
        return self.total / self.count
"""
OWN = "{_target_: ownmetrics.Confidence, power: 2, name: sureness}"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of a user: ``ownmetrics.Confidence``."""
    (tmp_path / "ownmetrics.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ownmetrics", raising=False)


def composed(*typed: str) -> Any:
    """Compose what is typed, in a shell's words."""
    return compose(*CommandLine.parse(list(typed)).overrides)


def test_the_metrics_of_a_run_are_those_of_all_its_test_images(
    package: None, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["metrics=[f1,top5,confusion]", "metrics.sureness._target_=ownmetrics.Confidence",
                 "metrics.sureness.power=2", "trust=[ownmetrics]",
                 "callbacks.checkpoint.monitor=val/f1", "data.eval_batch_size=50",
                 "callbacks.early_stopping.monitor=val/sureness",
                 "callbacks.early_stopping.mode=max"]  # fmt: skip
    results = {s: train(*overrides, f"model={s}", name=s) for s in ("nn", "functional")}
    names = ("f1", "top5", "sureness", "confusion")
    keys = [f"{split}/{name}" for split in ("val", "test") for name in names]
    assert [results["nn"][key] for key in keys] == [results["functional"][key] for key in keys]

    run, result, config = tmp_path / "nn", results["nn"], compose(*overrides, "model=nn")
    assert json.loads((run / "result.json").read_text()) == result
    model, data = make_model(config), make_data(config)
    state = load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    model.load_state_dict({name.removeprefix("model."): t for name, t in state.items()})
    test = data.splits.test
    with torch.no_grad():
        logits = model.eval()(data.normalise(test.read(torch.arange(len(test)))))
    confusion = torch.zeros(10, 10)
    for true, guess in zip(test.labels, logits.argmax(1), strict=True):
        confusion[true, guess] += 1
    right = confusion.diag()
    f1 = (2 * right / (confusion.sum(0) + confusion.sum(1))).mean()
    top5 = (logits.topk(5).indices == test.labels.unsqueeze(1)).any(1).double().mean()
    assert result["test/confusion"] == confusion.tolist()
    assert result["test/f1"] == pytest.approx(f1.item())
    assert result["test/top5"] == pytest.approx(top5.item())
    surest = logits.softmax(1).max(1).values.double() ** 2
    assert result["test/sureness"] == pytest.approx(surest.mean().item())

    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    shown = EventAccumulator(str(run)).Reload()
    for key in ("val/f1", "val/sureness"):
        assert len(logged := [float(row[key]) for row in rows if row[key]]) == 1
        assert logged[-1] == result[key]
        curve = [event.value for event in shown.Scalars(key)]
        assert curve == pytest.approx(logged)
    assert result["callback_metrics"] == {}
    capsys.readouterr()
    print_report(json.loads(json.dumps(result)), config=config, run_dir=run, overrides=overrides)
    assert f"test f1        {f1.item():.4g}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["metrics=f1", "metrics.f1.averge=micro"], "metrics.f1.averge=micro: F1Score has no such"),
        ([f"metrics=[{OWN}]", "metrics.sureness.pwer=1"], "metrics.sureness.pwer=1: .* power?"),
        (["metrics=[{_target_: ownmetrics.Other}]"], "metrics.other._target_=ownmetrics.Other"),
        (["metrics=[{_target_: builtins.print}]"], "metrics.print._target_=builtins.print"),
        (["metrics=[{average: macro}]"], "metrics=.*: each needs a _target_, such as torchmetrics"),
        (["metrics=[f1,top6]"], "metrics=top6: no such choice; did you mean top5"),
        ([f"metrics=[sureness,{OWN}]"], "metrics=.*: two are called sureness"),
        (["metrics=torchmetrics.F1Score"], "choice; type a class as metrics.NAME._target_=torchm"),
        (["callbacks.checkpoint.monitor=val/f1"], "monitor=val/f1: must be 'val/loss' or 'val/acc"),
        (["metrics=f1", "sweep.metric=val/f"], "metric=val/f: must be 'val/loss', 'val/acc' or '"),
        ([f"metrics=[{OWN}]", "sweep.metric=val/sureness"], "sweep.mode: .*; set sweep.mode=max"),
        (["metrics=f1", "sweep.metric=val/f1", "sweep.mode=min"], "sweep.mode=min: .* more is"),
        (["metrics={loss: {_target_: torchmetrics.F1Score}}"], "metrics.loss=.*: is measured"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_line_before_any_data_is_read(
    typed: list[str], line: str, package: None
) -> None:
    with pytest.raises(ConfigError, match=line.replace("?", r"\?")):
        check_targets(composed(*typed, "trust=[ownmetrics]"))


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["metrics=[{_target_: torchmetrics.classification.BinaryF1Score}]"], "metrics.f1_score"),
        (["metrics=confusion", "sweep.metric=val/confusion", "sweep.mode=max"], "sweep.metric"),
        ([f"metrics=[{OWN}]", "sweep.metric=val/sureness", "sweep.mode=min"], "sweep.metric=val/s"),
    ],
)  # fmt: skip
def test_a_metric_is_tried_before_the_training(typed: list[str], line: str, package: None) -> None:
    config = composed(*typed, "trust=[ownmetrics]")
    with pytest.raises(ConfigError, match=f"^{line}"):
        make_metrics(config, make_data(config))


def test_the_mode_of_a_name_is_torchmetrics() -> None:
    modes: dict[bool | None, set[str | None]] = {True: set(), False: set(), None: set()}
    for name in classification.__all__:
        kind = getattr(classification, name)
        if name.startswith(("Multiclass", "Multilabel")):
            modes[kind.higher_is_better].add(known_mode(f"val/{name_of(name)}"))
    assert modes == {True: {"max"}, False: {"min"}, None: {None}}


def test_a_metric_that_a_users_callback_logs_may_be_monitored() -> None:
    own = "callbacks.custom=[{_target_: pytorch_lightning.callbacks.Timer}]"
    monitor = ("callbacks.checkpoint.monitor=val/mine", "callbacks.checkpoint.mode=max")
    assert composed(own, *monitor).callbacks.checkpoint.monitor == "val/mine"
    with pytest.raises(ConfigError, match=r"set callbacks.checkpoint.mode=max"):
        composed(own, monitor[0])


AUROC = "{_target_: torchmetrics.classification.MulticlassAUROC, average: null}"
IN_A_FILE = """
# @package _global_
metrics:
  - _target_: torchmetrics.classification.MulticlassJaccardIndex
"""


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ([f"metrics=[{AUROC}]"], ["auroc"]),
        ([f"metrics=[f1,top5,{AUROC}]"], ["f1", "top5", "auroc"]),
        (["experiment=mine"], ["jaccard_index"]),
        (["experiment=mine", f"metrics=[f1,{AUROC}]"], ["f1", "jaccard_index", "auroc"]),
        (["metrics=[]"], []),
    ],
    ids=str,
)
def test_choices_and_listed_classes_are_one_mapping(
    typed: list[str], names: list[str], tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(IN_A_FILE)
    (made,) = compose_command(CommandLine.parse([*typed, f"--config-dir={tmp_path}"]))
    assert list(made.config.get("metrics") or {}) == names
    if "auroc" in names:
        expected = {"_target_": "torchmetrics.classification.MulticlassAUROC", "average": None}
        assert made.config.metrics.auroc == expected


def test_choices_in_the_body_of_a_file_are_refused_with_the_place_for_them(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nmetrics: [f1, top5]")
    with pytest.raises(ConfigError, match=r"^metrics: f1 is .*list: - override /metrics: \[f1\]"):
        list(compose_command(CommandLine.parse(["experiment=mine", f"--config-dir={tmp_path}"])))


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        (["metrics=[top5,f1]", "metrics.f1.average=micro"], ["top5", "f1"]),
        (["metrics=none"], []),
        ([f"metrics=[{AUROC}]"], ["f1", "auroc"]),
        (["metrics.f1.average=micro"], ["f1"]),
    ],
    ids=str,
)
def test_a_resumed_run_takes_other_metrics(
    typed: list[str], names: list[str], tmp_path: Path
) -> None:
    Run(tmp_path).path.mkdir(exist_ok=True)
    Run(tmp_path).begin(compose("metrics=f1"), ["metrics=f1"], {})
    metrics = composed(*typed, f"resume={tmp_path}").metrics
    assert list(metrics) == names
    if "f1" in names:
        average = "macro" if "auroc" in names else "micro"
        assert metrics["f1"].arguments["average"] == average


SMALL = (
    "data=synthetic", "data.train_size=64", "data.test_size=8", "data.batch_size=32", "logger=csv",
    "network.layers=[Flatten,{Linear:{out_features:10}}]", "recorder=off",
)  # fmt: skip
CALLBACK = """
import pytorch_lightning as pl

class Logs(pl.Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        value = 1.0 + trainer.current_epoch
        pl_module.log("val/logged", value)
        for logger in trainer.loggers:
            logger.log_metrics({"val/written": value}, step=trainer.global_step)
"""


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Choose a callback that logs 1, 2, 3 as ``val/logged`` and ``val/written``."""
    (tmp_path / "owncallback.py").write_text(CALLBACK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "owncallback", raising=False)
    return ("callbacks.custom=[{_target_: owncallback.Logs}]", "trust=[owncallback]", *SMALL)


@pytest.mark.parametrize("metric", ["val/logged", "val/written"])
def test_the_monitored_value_of_a_callback_is_that_of_this_epoch(
    metric: str, logs: tuple[str, ...], train: Train, tmp_path: Path
) -> None:
    monitor = "callbacks.checkpoint"
    train(*logs, f"{monitor}.monitor={metric}", f"{monitor}.mode=max",
          "trainer.max_epochs=3")  # fmt: skip
    (best,) = (tmp_path / "run" / "checkpoints").glob("best-*")
    assert best.name.startswith("best-epoch002")


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("callbacks.checkpoint.monitor", "callbacks.checkpoint.mode=max"),
        ("callbacks.early_stopping.monitor", "callbacks.early_stopping.patience=1"),
        ("scheduler.monitor", "scheduler=plateau"),
    ],
)
def test_a_metric_that_no_callback_logs_ends_the_first_epoch_with_those_that_are(
    key: str, more: str, logs: tuple[str, ...], train: Train
) -> None:
    kept = [] if key.startswith("callbacks.ch") else ["callbacks.checkpoint.save_top_k=0"]
    mode = f"{key.removesuffix('monitor')}mode=max"
    line = f"^{key}=val/logge: is not logged; did you mean val/logged.; logged are .*val/acc"
    with pytest.raises(ConfigError, match=line):
        train(*logs, more, mode, f"{key}=val/logge", *kept)
