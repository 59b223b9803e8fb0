"""The model: the declared network in a style, a model of torchvision, or your own class."""

from typing import Annotated, Literal

from pydantic import Field

from convtrain.config.section import Choice, FileName
from convtrain.config.targets import Target
from convtrain.config.trust import MODEL


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
    kind = MODEL
    style: Literal["custom"] = Field(description="how the model holds its weights")


Model = Annotated[DeclaredModel | TorchvisionModel | CustomModel, Field(discriminator="style")]
