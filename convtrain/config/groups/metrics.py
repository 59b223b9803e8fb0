"""Metrics of torchmetrics or of a user's own, beside loss and accuracy."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field

from convtrain.config.metrics import by_name
from convtrain.config.mistakes import Mistake
from convtrain.config.signatures import parameters_of
from convtrain.config.targets import Target
from convtrain.config.trust import METRIC
from convtrain.errors import did_you_mean

OPTIONS = ("compute_on_cpu",)
"""Arguments of every torchmetrics Metric; others would change how devices are synchronised."""


class MetricTarget(Target):
    """A metric; it is called with probabilities (N, classes) and class indices (N,)."""

    kind = METRIC
    given = ("num_classes", "num_labels", "task", "validate_args")

    def mistakes(self) -> Iterator[Mistake]:
        yield from super().mistakes()
        if self.target.startswith("torchmetrics."):  # passes on any argument
            known = [*(parameters_of(self.builder) or {}), *OPTIONS]
            for name in self.arguments.keys() - known:
                text = f"{self.class_name} has no such argument{did_you_mean(name, known)}"
                yield Mistake(f"{self.key}.{name}", text)


def _named(value: object) -> object:
    return by_name(value) if isinstance(value, list) else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z]\w*$", max_length=50)]
Metrics = Annotated[dict[Name, MetricTarget], BeforeValidator(_named)]
