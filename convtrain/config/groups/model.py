"""The model: the declared network in a style, one of torchvision or timm, or your own class."""

from collections.abc import Iterator
from types import FunctionType
from typing import Annotated, Literal, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field

from convtrain.config.mistakes import Mistake
from convtrain.config.section import Choice, Count, FileName, Text
from convtrain.config.signatures import parameters_of, takes
from convtrain.config.targets import Target
from convtrain.config.trust import MODEL, TIMM, short_name
from convtrain.errors import did_you_mean


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ModelChoice(Choice):
    """What every model has: the keys about how its training begins, which no builder takes."""

    weights: Text | None = Field(
        default=None,
        description="weights to begin with: DEFAULT or another published name, a file, or a run",
    )
    freeze: Annotated[list[Text], BeforeValidator(_as_list)] = Field(
        default=[],
        description="parameters that are not trained: backbone (all but the head), or globs of "
        "names: docs/finetuning.md",
    )
    unfreeze_at_epoch: Count | None = Field(
        default=None,
        description="epoch, counted from 0, from which the parameters of model.freeze are trained",
    )

    @property
    def arguments(self) -> dict[str, object]:
        own = ModelChoice.model_fields
        return {key: value for key, value in super().arguments.items() if key not in own}

    @property
    def starting_weights(self) -> str | None:
        """The weights that convtrain loads before the training."""
        return self.weights


class DeclaredModel(ModelChoice):
    builds = "convtrain.models.build:build_network"
    selected_by = None
    style: Literal["functional", "nn"] = Field(description="how the model holds its weights")


class TorchvisionModel(ModelChoice):
    builds = "convtrain.models.build:build_torchvision_model"
    selected_by = "style"
    style: Literal["torchvision"] = Field(description="how the model holds its weights")
    name: FileName = Field(description="name of a torchvision classification model")


class TimmModel(ModelChoice):
    builds = "convtrain.models.timm_models:build_timm_model"
    selected_by = "style"
    style: Literal["timm"] = Field(description="how the model holds its weights")
    name: FileName = Field(description="name of a model of timm, such as resnet18.a1_in1k")


class CustomModel(Target, ModelChoice):
    """A class, or a factory: a function that returns a model."""

    model_config = ConfigDict(extra="allow")

    kind = MODEL
    given = ("num_classes", "in_channels", "in_chans", "input_shape")
    style: Literal["custom"] = Field(description="how the model holds its weights")
    weights: object = Field(  # type: ignore[assignment]  # the class may have such an argument
        default=None, description=ModelChoice.model_fields["weights"].description
    )

    @property
    def takes_weights(self) -> bool:
        """Whether ``weights`` is an argument of the class; libraries leave them to convtrain."""
        return not self.target.startswith(tuple(PASSED_ON)) and takes(self.builder, "weights")

    @property
    def starting_weights(self) -> str | None:
        is_ours = isinstance(self.weights, str) and not self.takes_weights
        return str(self.weights) if is_ours else None

    @property
    def class_name(self) -> str:
        return short_name(self.target, self.arguments)

    def offered(self, **values: object) -> dict[str, object]:
        passed_on = next((k for at, k in PASSED_ON.items() if self.target.startswith(at)), ())
        further = {k: values[k] for k in passed_on if k in values and k not in self.arguments}
        if self.weights is not None and self.takes_weights:
            further["weights"] = self.weights
        return {**super().offered(**values), **further}

    def mistakes(self) -> Iterator[Mistake]:
        yield from super().mistakes()
        if not (self.weights is None or isinstance(self.weights, str) or self.takes_weights):
            yield Mistake("model.weights", "must be a published name, a file or a run")
        if self.target.startswith(TORCHVISION) and isinstance(self.builder, FunctionType):
            made = get_type_hints(self.builder)["return"]
            known = {**(parameters_of(made) or {}), **(parameters_of(self.builder) or {})}
            for name in self.arguments.keys() - known.keys():
                near = did_you_mean(name, known)
                yield Mistake(f"model.{name}", f"{self.class_name} has no such argument{near}")


TORCHVISION = "torchvision.models."
PASSED_ON = {TORCHVISION: ("num_classes",), TIMM: ("num_classes", "in_chans")}
"""Beginning of a name to the arguments that its signature hides in ``**kwargs``."""


Model = Annotated[
    DeclaredModel | TorchvisionModel | TimmModel | CustomModel, Field(discriminator="style")
]
