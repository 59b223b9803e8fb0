"""The losses. A builder is the loss itself: a function of logits, targets and the fields."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from convtrain.config.section import Choice, Fraction


class LossChoice(Choice):
    def build(self, **runtime: object) -> Callable[..., Any]:
        """Return the loss as a function of logits (N, classes) and targets; a mean over images."""
        return partial(self.builder, **self.arguments, **runtime)


class CrossEntropy(LossChoice):
    builds = "torch.nn.functional:cross_entropy"
    name: Literal["cross_entropy"] = Field(description="loss function")
    label_smoothing: Fraction = Field(description="part of the target spread over all classes, 0-1")


class MultiMargin(LossChoice):
    builds = "torch.nn.functional:multi_margin_loss"
    name: Literal["multi_margin"] = Field(description="loss function")
    margin: float = Field(
        ge=0, le=1e6, description="margin between the right logit and the others, in logits"
    )
    p: int = Field(ge=1, le=2, description="exponent of the margin")


class NLL(LossChoice):
    builds = "convtrain.training.losses:nll"
    name: Literal["nll"] = Field(description="loss function")


class MSE(LossChoice):
    builds = "convtrain.training.losses:mse"
    name: Literal["mse"] = Field(description="loss function")


class Sum(LossChoice):
    builds = "convtrain.training.losses:total"
    name: Literal["sum"] = Field(description="loss function")


Loss = Annotated[CrossEntropy | MultiMargin | NLL | MSE | Sum, Field(discriminator="name")]
