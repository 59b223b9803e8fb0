"""The model: the declared network in a style, a model of torchvision, or your own class."""

from collections.abc import Iterator
from types import FunctionType
from typing import Annotated, Literal, get_type_hints

from pydantic import Field

from convtrain.config.mistakes import Mistake
from convtrain.config.section import Choice, FileName
from convtrain.config.signatures import parameters_of
from convtrain.config.targets import Target
from convtrain.config.trust import MODEL, TIMM, short_name
from convtrain.errors import did_you_mean


class DeclaredModel(Choice):
    builds = "convtrain.models.build:build_network"
    selected_by = None
    style: Literal["functional", "nn"] = Field(description="how the model holds its weights")


class TorchvisionModel(Choice):
    builds = "convtrain.models.build:build_torchvision_model"
    selected_by = "style"
    style: Literal["torchvision"] = Field(description="how the model holds its weights")
    name: FileName = Field(description="name of a torchvision classification model")


class CustomModel(Target):
    """A class, or a factory: a function that returns a model."""

    kind = MODEL
    given = ("num_classes", "in_channels", "in_chans", "input_shape")
    style: Literal["custom"] = Field(description="how the model holds its weights")

    @property
    def class_name(self) -> str:
        return short_name(self.target, self.arguments)

    def offered(self, **values: object) -> dict[str, object]:
        passed_on = next((k for at, k in PASSED_ON.items() if self.target.startswith(at)), ())
        further = {k: values[k] for k in passed_on if k in values and k not in self.arguments}
        return {**super().offered(**values), **further}

    def mistakes(self) -> Iterator[Mistake]:
        yield from super().mistakes()
        if self.target.startswith(TORCHVISION) and isinstance(self.builder, FunctionType):
            made = get_type_hints(self.builder)["return"]
            known = {**(parameters_of(made) or {}), **(parameters_of(self.builder) or {})}
            for name in self.arguments.keys() - known.keys():
                near = did_you_mean(name, known)
                yield Mistake(f"model.{name}", f"{self.class_name} has no such argument{near}")


TORCHVISION = "torchvision.models."
PASSED_ON = {TORCHVISION: ("num_classes",), TIMM: ("num_classes", "in_chans")}
"""Beginning of a name to the arguments that its signature hides in ``**kwargs``."""


Model = Annotated[DeclaredModel | TorchvisionModel | CustomModel, Field(discriminator="style")]
