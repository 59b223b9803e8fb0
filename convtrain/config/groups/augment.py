"""Augmentation of the training images."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from convtrain.config.mistakes import Mistake
from convtrain.config.section import Choice, Fraction, Whole
from convtrain.config.targets import Trusting
from convtrain.config.transforms import transform_mistakes

PartOfArea = Annotated[float, Field(gt=0, le=1)]


class Augment(Trusting, Choice):
    builds = "convtrain.data.augment:Augmentation"
    random_crop: Whole = Field(description="padding before the crop, in pixels; 0 is off")
    padding_mode: Literal["constant", "reflect"] = Field(
        description="padding of an image: black, or its mirror image"
    )
    horizontal_flip: Fraction = Field(description="probability; 0 is off")
    flip_alternates: bool = Field(description="flip each image in regular epochs, not by chance")
    cutout: Whole = Field(description="side of the square that is blanked, in pixels; 0 is off")
    mixup: float = Field(
        ge=0,
        le=1000,
        description="alpha of Beta(alpha, alpha), the part of each image in a mixture; 0 is off",
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="alpha of Beta(alpha, alpha), the part that is not replaced by a box of "
        "another image; 0 is off",
    )
    crop_scale: Annotated[list[PartOfArea], Field(min_length=2, max_length=2)] | None = Field(
        default=[0.08, 1.0],
        description="area of the random crop of a stored image (data.store_size), as a part of it; "
        "null gives the transforms the whole image",
    )
    crop_ratio: list[Annotated[float, Field(gt=0, le=1000)]] = Field(
        default=[3 / 4, 4 / 3],
        min_length=2,
        max_length=2,
        description="width / height of that crop, both in pixels, smallest and largest",
    )
    transforms: list[object] = Field(
        default=[],
        description="list of torchvision.transforms.v2 classes, applied to each image by itself",
    )
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        default="auto",
        description="processes that apply the transforms, on each device; 0 is none, auto is one "
        "for each CPU core",
    )

    def mistakes(self) -> Iterator[Mistake]:
        yield from transform_mistakes(self.transforms, self._trust)
