"""What is known of a metric by its name."""

from typing import Literal

Metric = Literal["val/loss", "val/acc"]
Mode = Literal["auto", "min", "max"]


def mode_of(metric: str) -> Literal["min", "max"]:
    """Tell whether less or more of a metric is better."""
    return "max" if metric.endswith("acc") else "min"
