"""The result of a finished run: what ``result.json`` holds."""

from collections.abc import Mapping
from typing import TypedDict, cast

Metrics = TypedDict(
    "Metrics",
    {
        "train/loss_epoch": float, "train/acc_epoch": float, "val/loss": float, "val/acc": float,
        "test/loss": float, "test/acc": float,
    },
    total=False,
)  # fmt: skip
"""Every metric of a run. A training without validation or test lacks theirs."""

METRICS = tuple(Metrics.__annotations__)
EVALUATED = METRICS[2:]
"""The metrics of the validation and the test."""


class RecorderCost(TypedDict):
    """What the gradient recorder cost: part of the training time, and bytes on disk."""

    share_of_time: float
    bytes: int


class Diagnosed(Metrics, total=False):
    """What only a run with a gradient recorder has: its cost, and the diagnosis in lines."""

    recorder: RecorderCost
    gradients: list[str]


class Result(Diagnosed):
    """The result of a finished run. Files of older versions lack some of the keys.

    Attributes:
        steps: optimiser steps.
        epochs: epochs that were begun.
        parameters: numbers in all parameters.
        stopped_early: why the training ended before its limits, or None.
        tested_checkpoint: name of the checkpoint that was tested; None for the last weights.
        tested_split: the split that was tested: ``test``, or ``val`` where there is no other.
        images_per_second: during training, without validation.
        data_share_of_time: part of the training time that was spent on waiting for batches.
        wall_time_seconds: of the whole run.
        callback_metrics: last values of metrics that the user's callbacks logged.
    """

    steps: int
    epochs: int
    parameters: int
    stopped_early: str | None
    tested_checkpoint: str | None
    tested_split: str
    images_per_second: float
    data_share_of_time: float
    wall_time_seconds: float
    callback_metrics: dict[str, float]


def metrics_in(values: Mapping[str, object]) -> Metrics:
    """Return the metrics among some values, such as those of a result, in one order."""
    return cast(Metrics, {name: values[name] for name in METRICS if name in values})


def metric_of(result: Result, name: str) -> float | None:
    """Return a metric of a result by its name, or None if it was not measured."""
    return cast("float | None", result.get(name))
