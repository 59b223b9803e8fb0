"""Forecast the bytes of a record on disk, and thin its plan to fit a limit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from convtrain.gradients.record.schedule import Plan
from convtrain.text import matches

# Measured bytes of a compressed part: for the part, and for each row.
STEPS = 1670, 31
NAME = 10.0  # for the name of a parameter or layer, in each part
NORM = 540, 4.3
STATISTICS = 970, 23.5  # in addition to NORM
LAYERS = 1650, 41
HISTOGRAMS = 1600, 29
DESCRIPTION = 100  # for a parameter in parameters.json, or a layer in the graph of grad_fns


@dataclass(frozen=True)
class RecordSize:
    """The numbers that determine the size of a record.

    ``values`` counts the elements of each recorded parameter. ``saves`` counts checkpoints, each of
    which flushes the rows in memory.
    """

    steps: int
    values: Mapping[str, int] = field(default_factory=dict)
    layers: int = 0
    rows_per_flush: int = 50
    saves: int = 0

    def of_model(self, model: nn.Module, plan: Plan) -> "RecordSize":
        """Return the size with a model's layers and the trainable parameters of the plan."""
        trained = ((name, p.numel()) for name, p in model.named_parameters() if p.requires_grad)
        values = {name: count for name, count in trained if plan.selects(name)}
        layers = sum(not any(module.children()) for module in model.modules())
        return replace(self, values=values, layers=layers)


def forecast_bytes(plan: Plan, size: RecordSize) -> int:
    """Return about how many bytes the record of a run takes on disk."""
    count = {name: sampling.count(size.steps) for name, sampling in plan.samplings.items()}
    rows = max(count.values(), default=0)
    if not rows:
        return 0
    tensors, statistics = count.get("tensors", 0), count.get("statistics", 0)
    parts = min(rows, -(-rows // size.rows_per_flush) + size.saves + tensors)
    parameters = len(size.values)
    total = parts * (STEPS[0] + NORM[0] + NAME * parameters) + DESCRIPTION * parameters
    total += rows * (STEPS[1] + NORM[1] * parameters)
    total += parts * STATISTICS[0] * (plan.statistics is not None)
    total += statistics * STATISTICS[1] * parameters
    if sampled := count.get("distributions", 0):
        sampled_parts = min(sampled, parts)
        total += sampled_parts * (LAYERS[0] + HISTOGRAMS[0] + NAME * (parameters + size.layers))
        total += sampled * (LAYERS[1] * size.layers + HISTOGRAMS[1] * parameters)
        total += DESCRIPTION * size.layers
    whole = [n for name, n in size.values.items() if matches(name, plan.tensor_names)]
    return round(total + tensors * (4 * sum(whole) + DESCRIPTION * len(whole)))


def fit_on_disk(plan: Plan, size: RecordSize, *, max_bytes: int) -> tuple[Plan, int]:
    """Halve the most expensive detail until the forecast fits; return the plan and the forecast."""
    forecast = forecast_bytes(plan, size)
    while forecast > max_bytes and plan.samplings:
        *_, (detail, sampling) = plan.samplings.items()
        half = sampling.model_copy(update={"every_n_steps": 2 * sampling.every_n_steps})
        plan = plan.with_sampling(detail, half if half.every_n_steps <= size.steps else None)
        forecast = forecast_bytes(plan, size)
    return plan, forecast
