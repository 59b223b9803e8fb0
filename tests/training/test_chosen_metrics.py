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
    package: None, train: Train, tmp_path: Path
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


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["metrics=f1", "metrics.f1.averge=micro"], "metrics.f1.averge=micro: F1Score has no such"),
        ([f"metrics=[{OWN}]", "metrics.sureness.pwer=1"], "metrics.sureness.pwer=1: .* power?"),
        (["metrics=[{_target_: ownmetrics.Other}]"], "metrics.other._target_=ownmetrics.Other"),
        (["metrics=[{_target_: builtins.print}]"], "metrics.print._target_=builtins.print"),
        (["metrics=[{average: macro}]"], "metrics=.*: each needs a _target_, such as torchmetrics"),
        (["metrics=[f1,top6]"], "metrics=top6: no such choice; did you mean top5"),
        (["metrics=[f1,{_target_: ownmetrics.Confidence}]"], "metrics=.*: f1 is a choice; type "),
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


def test_a_listed_metric_is_one_by_name_in_the_configuration() -> None:
    typed = ["metrics=[{_target_: torchmetrics.classification.MulticlassAUROC, average: null}]"]
    (made,) = compose_command(CommandLine(overrides=CommandLine.parse(typed).overrides))
    expected = {"_target_": "torchmetrics.classification.MulticlassAUROC", "average": None}
    assert made.config.metrics == {"auroc": expected}
