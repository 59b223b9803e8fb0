"""The losses. A builder is the loss itself: a function of logits, targets and the fields."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from convtrain.config.section import Choice, Fraction

ClassWeight = Annotated[float, Field(ge=0, le=1e6)]


class LossChoice(Choice):
    takes_fractions: ClassVar[bool] = True  # of classes, as mixup makes them
    takes_labels: ClassVar[bool] = False  # any number of labels an image

    def build(self, **runtime: object) -> Callable[..., Any]:
        """Return the loss as a function of logits (N, classes) and targets; a mean over images."""
        return partial(self.builder, **self.arguments, **runtime)


class CrossEntropy(LossChoice):
    builds = "torch.nn.functional:cross_entropy"
    name: Literal["cross_entropy"] = Field(description="loss function")
    label_smoothing: Fraction = Field(description="part of the target spread over all classes, 0-1")


class MultiMargin(LossChoice):
    builds = "torch.nn.functional:multi_margin_loss"
    takes_fractions = False
    name: Literal["multi_margin"] = Field(description="loss function")
    margin: float = Field(
        ge=0, le=1e6, description="margin between the right logit and the others, in logits"
    )
    p: int = Field(ge=1, le=2, description="exponent of the margin")


class NLL(LossChoice):
    builds = "convtrain.training.losses:nll"
    name: Literal["nll"] = Field(description="loss function")


class BCE(LossChoice):
    builds = "convtrain.training.losses:bce"
    takes_labels = True
    name: Literal["bce"] = Field(description="loss function")
    label_smoothing: Fraction = Field(description="part of the target spread over all classes, 0-1")


class Focal(LossChoice):
    builds = "convtrain.training.losses:focal"
    takes_labels = True  # in its sigmoid form
    name: Literal["focal"] = Field(description="loss function")
    gamma: float = Field(ge=0, le=100, description="exponent of 1 - p; 0 is cross entropy")
    form: Literal["softmax", "sigmoid"] = Field(
        description="probabilities of an image's classes together, or of each class by itself"
    )
    alpha: Fraction | Annotated[list[ClassWeight], Field(min_length=1)] | None = Field(
        description="softmax: a weight for each class; sigmoid: the weight of present classes, 0-1"
    )


class MSE(LossChoice):
    builds = "convtrain.training.losses:mse"
    takes_labels = True
    name: Literal["mse"] = Field(description="loss function")


class Sum(LossChoice):
    builds = "convtrain.training.losses:total"
    takes_fractions, takes_labels = False, True
    name: Literal["sum"] = Field(description="loss function")


Loss = Annotated[
    CrossEntropy | BCE | Focal | MultiMargin | NLL | MSE | Sum, Field(discriminator="name")
]
