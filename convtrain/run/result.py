"""The content of ``result.json``, the result of a finished run."""

from collections.abc import Mapping
from typing import TypedDict, cast

from convtrain.errors import few

Metrics = TypedDict(
    "Metrics",
    {
        "train/loss_epoch": float, "train/acc_epoch": float, "val/loss": float, "val/acc": float,
        "test/loss": float, "test/acc": float,
    },
    total=False,
)  # fmt: skip
"""Every metric of a run. A training without validation or test lacks its metrics."""

METRICS = tuple(Metrics.__annotations__)
EVALUATED = METRICS[2:]  # of the validation and the test


class RecorderCost(TypedDict):
    """The cost of the gradient recorder: its fraction of the training time, and bytes on disk."""

    share_of_time: float
    bytes: int


class Seconds(TypedDict):
    """Where the wall time of the process went that ended the run.

    Attributes:
        start: making data, model and trainer.
        train: the training steps, with ``data`` and ``recorder``.
        data: waiting for batches of the training.
        recorder: recording gradients.
        val, test: the validations and the test.
    """

    start: float
    train: float
    data: float
    recorder: float
    val: float
    test: float


class Diagnosed(Metrics, total=False):
    """The keys that not every run has.

    Attributes:
        recorder, gradients: what the gradient recorder took, and the diagnosis.
        ema: decay of the average of the weights, with which validation and test were made.
    """

    recorder: RecorderCost
    gradients: list[str]
    ema: float


class Result(Diagnosed):
    """The result of a finished run. Files of older versions lack some of the keys.

    The metrics that ``metrics`` chose are keys as well, such as ``val/f1``: a number, or a list of
    numbers for each class.

    Attributes:
        steps: optimiser steps.
        epochs: epochs that began.
        parameters: elements of all parameters.
        stopped_early: why the training ended before its limits, or None.
        tested_checkpoint: name of the tested checkpoint; None for the last weights.
        tested_split: ``test``, or ``val`` if the data has no test split.
        images_per_second: speed of training, without validation.
        data_share_of_time: fraction of the training time in which the loop waited for batches.
        seconds: where the wall time went.
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
    seconds: Seconds
    callback_metrics: dict[str, float]


def metric_names(*results: Mapping[str, object]) -> list[str]:
    """Return ``METRICS``, and the names of the metrics that ``metrics`` chose in any result."""
    chosen = (key for result in results for key in result if key.startswith(("val/", "test/")))
    return list(dict.fromkeys([*METRICS, *chosen]))


def tested_on_validation(results: Mapping[str, Mapping[str, object]]) -> str:
    """Return a line that names the results of which validation images were tested, or nothing."""
    those = [name for name, result in results.items() if result.get("tested_split") == "val"]
    if not those:
        return ""
    all_of_them = len(those) == len(results)
    whose = "all test metrics" if all_of_them else f"the test metrics of {few(those)}"
    return f"{whose} are of the validation images, because the data has no others"


def metrics_in(values: Mapping[str, object]) -> Metrics:
    """Return the metrics in a result or another mapping, in the order of ``METRICS``."""
    return cast(Metrics, {name: values[name] for name in METRICS if name in values})


def numbers(result: Result) -> list[str]:
    """Return the names of all metrics of a result that are single numbers."""
    names = (*metric_names(result), *result.get("callback_metrics", {}))
    return [name for name in names if isinstance(metric_of(result, name), int | float)]


def metric_of(result: Result, name: str) -> float | None:
    """Return a metric of a result, or None if it was not measured."""
    return cast("float | None", result.get(name, result.get("callback_metrics", {}).get(name)))
