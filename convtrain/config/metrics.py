"""The names of metrics, which of them can be monitored, and whether more or less is better."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from convtrain.errors import did_you_mean, few

Metric = Annotated[str, Field(min_length=1, max_length=200)]
Mode = Literal["auto", "min", "max"]

ALWAYS = ("val/loss", "val/acc")
"""What every run measures that validates; others are chosen by ``metrics``."""

LESS_IS_BETTER = frozenset(
    (
        "loss", "calibration", "calibration_error", "coverage_error", "hamming_distance",
        "hinge_loss", "ranking_loss",
    )
)  # fmt: skip
MORE_IS_BETTER = frozenset(
    (
        "acc", "accuracy", "auroc", "average_precision", "cohen_kappa", "exact_match", "f1",
        "f1_score", "f_beta_score", "jaccard_index", "log_auc", "matthews_corr_coef", "precision",
        "ranking_average_precision", "recall", "top5",
    )
)  # fmt: skip
"""Names of metrics of torchmetrics.classification, and of the choices in ``configs/metrics``."""

MAX_NAMES = 30  # in a line

_TASK = re.compile(r"^(Multiclass|Multilabel|Binary)(?=.)|(?<=.)Metric$")
_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def known_mode(metric: str) -> Literal["min", "max"] | None:
    """Return whether a lower or a higher value of a metric is better, if its name is known."""
    name = metric.rpartition("/")[2]
    if name in MORE_IS_BETTER:
        return "max"
    return "min" if name in LESS_IS_BETTER else None


def mode_of(metric: str, mode: str = "auto") -> Literal["min", "max"]:
    """Return whether a lower or a higher value is better; ``mode`` decides unless it is auto."""
    if mode in ("min", "max"):
        return "min" if mode == "min" else "max"
    return known_mode(metric) or ("max" if metric.endswith("acc") else "min")


def not_logged(key: str, metric: str, logged: Iterable[str]) -> str:
    """Return the line for a metric that is monitored, but not among those that are logged."""
    names = [name for name in logged if name not in ("epoch", "step")]
    advice = did_you_mean(metric, names)
    return f"{key}={metric}: is not logged{advice}; logged are {few(names, MAX_NAMES)}"


def name_of(target: str) -> str:
    """Return the name of a metric's class in snake case, such as ``f1_score``."""
    plain = _TASK.sub("", target.rpartition(".")[2])
    return _WORD_BEGINS.sub("_", plain).lower()


def two_are_called(name: str) -> str:
    return f"two are called {name}; give one of them a name of its own: name: "


def by_name(items: Iterable[object]) -> dict[str, object]:
    """Return metrics that are listed by name: ``name``, or else that of the class.

    Raises:
        ValueError: an item names no class, or two have one name.
    """
    named: dict[str, object] = {}
    for item in items:
        if isinstance(item, str):
            raise ValueError(
                f"{item} is a choice; in a file, name it in the defaults list: "
                f"- override /metrics: [{item}]"
            )
        if not isinstance(item, Mapping) or not isinstance(item.get("_target_"), str):
            raise ValueError(  # the schema catches it
                "each needs a _target_, such as torchmetrics.classification.MulticlassF1Score"
            )
        rest = {key: value for key, value in item.items() if key != "name"}
        name = str(item.get("name", name_of(item["_target_"])))
        if name in named:
            raise ValueError(two_are_called(name))
        named[name] = rest
    return named
