"""The losses. A builder is the loss itself: a function of logits, targets and the fields."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from convtrain.config.mistakes import Mistake
from convtrain.config.section import Choice, Fraction
from convtrain.config.signatures import parameters_of, takes_tensor
from convtrain.config.targets import Target
from convtrain.config.torch_losses import known
from convtrain.config.trust import LOSS

ClassWeight = Annotated[float, Field(ge=0, le=1e6)]
ClassWeights = Literal["balanced"] | Annotated[list[ClassWeight], Field(min_length=1)] | None


class LossChoice(Choice):
    """``takes_fractions`` and ``takes_labels`` say what targets it takes beside class indices."""

    takes_fractions: ClassVar[bool] = True  # of classes, as mixup makes them
    takes_labels: ClassVar[bool] = False  # any number of labels an image

    def build(self, **runtime: object) -> Callable[..., Any]:
        """Return the loss as a function of logits (N, classes) and targets; a mean over images."""
        return partial(self.builder, **self.arguments, **runtime)


class WeightedLoss(LossChoice):
    """A loss that :class:`~convtrain.training.losses.ClassWeighted` may call with weights."""

    class_weights: ClassWeights = Field(
        default=None, description="factor of each class's loss; balanced: rare classes count more"
    )

    @property
    def arguments(self) -> dict[str, object]:
        return {key: value for key, value in super().arguments.items() if key != "class_weights"}


class CrossEntropy(WeightedLoss):
    builds = "convtrain.training.losses:cross_entropy"
    name: Literal["cross_entropy"] = Field(description="loss function")
    label_smoothing: Fraction = Field(description="part of the target spread over all classes, 0-1")


class MultiMargin(WeightedLoss):
    builds = "convtrain.training.losses:multi_margin"
    takes_fractions = False
    name: Literal["multi_margin"] = Field(description="loss function")
    margin: float = Field(
        ge=0, le=1e6, description="margin between the right logit and the others, in logits"
    )
    p: int = Field(ge=1, le=2, description="exponent of the margin")


class NLL(WeightedLoss):
    builds = "convtrain.training.losses:nll"
    name: Literal["nll"] = Field(description="loss function")


class BCE(WeightedLoss):
    builds = "convtrain.training.losses:bce"
    takes_labels = True
    name: Literal["bce"] = Field(description="loss function")
    label_smoothing: Fraction = Field(description="part of the target spread over all classes, 0-1")


class Focal(WeightedLoss):
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


class CustomLoss(Target):
    """A class that is called with (logits, targets), or a function ``f(logits, targets, ...)``."""

    kind = LOSS
    name: Literal["custom"] = Field(description="loss function")

    @property
    def positional(self) -> int:  # type: ignore[override]  # a function is called with two
        return 0 if isinstance(self.builder, type) else 2

    @property
    def takes_fractions(self) -> bool:
        """Whether it may be called with fractions of classes; those of others are tried."""
        return (takes := known(self.target)) is None or takes.fractions

    @property
    def takes_labels(self) -> bool:
        return (takes := known(self.target)) is None or takes.labels

    @property
    def arguments(self) -> dict[str, object]:
        """What was typed; lists are tensors where a class is annotated so, as weights are."""
        typed, called = super().arguments, self.builder
        if not isinstance(called, type):
            return typed
        torch = import_module("torch")  # the class is one of its modules
        for name, parameter in (parameters_of(called) or {}).items():
            if isinstance(value := typed.get(name), list) and takes_tensor(parameter):
                with suppress(TypeError, ValueError):  # not numbers
                    typed[name] = torch.tensor(value, dtype=torch.float32)
        return typed

    def build(self, *positional: object, **runtime: object) -> Callable[..., object]:
        """Return the module, or the function with its arguments."""
        called = self.builder
        if isinstance(called, type):
            made: Callable[..., object] = super().build()
            return made
        return partial(called, **self.arguments)

    def mistakes(self) -> Iterator[Mistake]:
        if known(self.target) is not None:
            for name in ("reduction", "reduce", "size_average"):
                if self.arguments.get(name, "mean") != "mean":
                    text = "a training needs the mean over the images of a batch; leave it out"
                    yield Mistake(f"loss.{name}", text)
        yield from super().mistakes()


Loss = Annotated[
    CrossEntropy | BCE | Focal | MultiMargin | NLL | MSE | Sum | CustomLoss,
    Field(discriminator="name"),
]
