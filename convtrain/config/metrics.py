"""The metrics that can be monitored, and their modes."""

from typing import Literal

Metric = Literal["val/loss", "val/acc"]
Mode = Literal["auto", "min", "max"]


def mode_of(metric: str) -> Literal["min", "max"]:
    """Return whether a lower or a higher value is better."""
    return "max" if metric.endswith("acc") else "min"
