"""The losses."""

from typing import Annotated, Literal

from pydantic import Field

from convtrain.config.section import Fraction, Section


class CrossEntropy(Section):
    name: Literal["cross_entropy"] = Field(description="loss function")
    label_smoothing: Fraction = Field(description="part of the target spread over all classes, 0-1")


class MultiMargin(Section):
    name: Literal["multi_margin"] = Field(description="loss function")
    margin: float = Field(
        ge=0, le=1e6, description="margin between the right score and the others, in scores"
    )
    p: int = Field(ge=1, le=2, description="exponent of the margin")


class PlainLoss(Section):
    name: Literal["nll", "mse", "sum"] = Field(description="loss function")


Loss = Annotated[CrossEntropy | MultiMargin | PlainLoss, Field(discriminator="name")]
