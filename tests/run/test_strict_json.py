"""What is not finite is written as JSON that every reader takes."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from convtrain.run.directory import Run
from convtrain.run.strict_json import from_json, to_json
from convtrain.training.loggers.metrics_csv import MetricsCsv
from convtrain.training.task import Task
from tests.conftest import Train


def strict(text: str) -> Any:
    """Read JSON and refuse what the standard does not have."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


VALUES: list[dict[str, Any]] = [
    {},
    {"a": 1.5, "b": "inf", "c": None, "d": True},
    {"a": math.inf, "b": -math.inf, "c": {"d": [1.0, math.inf, {"e": -math.inf}]}},
    {"a": [math.inf], "": math.inf, "a.b": math.inf},
]


@pytest.mark.parametrize("value", VALUES)
def test_what_is_written_is_json_and_comes_back(value: dict[str, Any]) -> None:
    strict(to_json(value))
    assert from_json(to_json(value)) == value


def test_nan_is_null_with_a_word() -> None:
    text = to_json({"loss": math.nan})
    assert strict(text) == {"loss": None, "not_finite": [["loss", "nan"]]}
    found: Any = from_json(text)
    assert math.isnan(found["loss"])


def test_a_training_whose_loss_is_infinite_leaves_json(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss_and_logits = Task.loss_and_logits

    def infinite(self: Task, *batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        _, scores = loss_and_logits(self, *batch)
        return 0 * scores.sum() + math.inf, scores  # the gradients are zero

    monkeypatch.setattr(Task, "loss_and_logits", infinite)
    train("data.limit=128", "alarm=off", "logger=csv")
    run = Run(tmp_path / "run")
    written = strict(run.result.read_text())
    assert written["train/loss_epoch"] is None
    assert written["not_finite"] == [["train/loss_epoch", "inf"]]
    result = run.read_result()
    assert result is not None
    assert result["train/loss_epoch"] == math.inf
    for path in (tmp_path / "run").rglob("*.json"):
        strict(path.read_text())


def test_metrics_csv_has_numbers_that_readers_of_csv_know(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path)
    logger.log_metrics({"val/loss": math.inf, "val/acc": math.nan, "lr": -math.inf}, 1)
    with logger.path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert [row[key] for key in ("val/loss", "val/acc", "lr")] == ["inf", "nan", "-inf"]
