"""The datasets: their keys, and the shapes, classes and sizes that are known before reading."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from convtrain.config.data_sections import (
    PUBLISHED,
    BaseData,
    ImageFiles,
    ItemData,
    SplitSizes,
    divided,
    held_out,
)
from convtrain.config.label_table import TableFormat
from convtrain.config.mistakes import Mistake
from convtrain.config.section import Count, Text, imported
from convtrain.config.signatures import takes, wrong_arguments
from convtrain.config.targets import Target, Trusting
from convtrain.config.torchvision_datasets import ROWS, Row, constructor
from convtrain.config.trust import DATASET

COLUMN = "name of the column of {}; null finds it by its usual names"
FUNCTIONS = {"transform", "target_transform", "transforms", "loader"}
"""Arguments of torchvision's datasets that a configuration cannot give."""
KIND = "library that names the dataset"


class Digits(BaseData):
    builds = "convtrain.data.sources.digits:load"
    name: Literal["digits"] = Field(description="dataset")
    test_fraction: float = Field(gt=0, lt=1, description="part of all images, 0-1")

    def full_sizes(self) -> SplitSizes:
        counts = PUBLISHED["digits"].training
        tested = [held_out(count, self.test_fraction) for count in counts]
        rest = [count - out for count, out in zip(counts, tested, strict=True)]
        return divided(rest, self.validation, sum(tested))


class TorchvisionData(BaseData):
    builds = "convtrain.data.sources.torchvision:load"
    name: Literal["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"] = Field(
        description="dataset"
    )

    def full_sizes(self) -> SplitSizes:
        published = PUBLISHED[self.name]
        return divided(published.training, self.validation, published.test)


class ImageFolder(ImageFiles):
    builds = "convtrain.data.sources.image_folder:load"
    name: Literal["image_folder"] = Field(description="dataset")


class LabelTable(ImageFiles):
    builds = "convtrain.data.sources.label_table:load"
    name: Literal["csv"] = Field(description="dataset")
    file: Text = Field(description="file with a row for each image")
    root: Text | None = Field(  # type: ignore[assignment]
        description="folder that the paths in data.file start from; null is that of data.file"
    )
    path_column: Text | None = Field(description=COLUMN.format("paths"))
    label_column: Text | None = Field(description=COLUMN.format("labels"))
    split_column: Text | None = Field(description=COLUMN.format("splits"))
    delimiter: Literal["comma", "semicolon", "tab"] | None = Field(
        description="what is between the columns"
    )
    label_separator: Text | None = Field(
        description="what is between the labels of an image that may have any number of them"
    )

    @property
    def source(self) -> str:
        return f"data.file={self.file}"

    @property
    def is_multi_label(self) -> bool:
        return self.label_separator is not None

    @property
    def format(self) -> TableFormat:
        return TableFormat(*(getattr(self, key) for key in TableFormat._fields))


class Synthetic(BaseData):
    builds = "convtrain.data.sources.synthetic:load"
    name: Literal["synthetic"] = Field(description="dataset")
    fill: Literal["noise", "ones"] = Field(description="content of the images")
    train_size: Count = Field(description="number of training and validation images")
    test_size: Count = Field(description="number of test images")

    def full_sizes(self) -> SplitSizes:
        size, classes = self.train_size, self.class_count or 1
        if self.fill == "ones":  # every split shows the same images
            return SplitSizes(size, size, min(self.test_size, size))
        each, rest = divmod(size, classes)  # the classes take turns
        counts = [each + (index < rest) for index in range(min(classes, size))]
        return divided(counts, self.validation, self.test_size)


class Dataset(Target):
    """A map-style dataset, or a function that returns training, validation and test datasets."""

    kind = DATASET
    given = ("root", "download", "num_classes")


class CustomData(Dataset, ItemData):
    """One dataset that is split, or a dataset for each split.

    The keys of the section that are no fields are arguments of ``_target_``.
    """

    model_config = ConfigDict(extra="allow")

    name: Literal["custom"] = Field(description="dataset")
    target: str | None = Field(  # type: ignore[assignment]
        default=None,
        alias="_target_",
        description="import path of a Dataset that is split, or of a function that returns train, "
        "val and test",
    )
    train: Dataset | None = Field(default=None, description="training dataset, with a _target_")
    val: Dataset | None = Field(default=None, description="validation dataset, with a _target_")
    test: Dataset | None = Field(default=None, description="test dataset, with a _target_")

    @property
    def source(self) -> str:
        return ", ".join(each.where for each in self.datasets)

    @property
    def datasets(self) -> list[Dataset]:
        """The datasets that are declared."""
        splits = (self.train, self.val, self.test)
        return [self] if self.target is not None else [each for each in splits if each is not None]

    def mistakes(self) -> Iterator[Mistake]:
        if self.target is not None:
            yield from super().mistakes()

    @property
    def makers(self) -> dict[str, Callable[[], object]]:
        shared = {"root": self.root, "download": self.download, "num_classes": self.class_count}
        return {
            each.where: partial(Target.build, each, **each.offered(**shared))
            for each in self.datasets
        }

    def build(self, *positional: object, **runtime: object) -> object:
        return ItemData.build(self)


class TorchvisionByName(Trusting, ItemData):
    """A classification dataset of ``torchvision.datasets``, by the name of its class.

    The keys of the section that are no fields are arguments of its constructor.
    """

    model_config = ConfigDict(extra="allow")

    kind: Literal["torchvision"] = Field(description=KIND)
    name: Text = Field(description="class of torchvision.datasets")

    @property
    def override(self) -> str:
        return f"data.name={self.name}"

    @property
    def source(self) -> str:
        return f"{self.override} data.root={self.root}"

    @property
    def is_multi_label(self) -> bool:
        return self.name in ROWS and self.row.multi_label

    @property
    def row(self) -> Row:
        return ROWS[self.name]

    @property
    def options(self) -> dict[str, object]:
        """The arguments of the constructor that are typed, or on which the classes depend."""
        return {**self.row.defaults(), **(self.model_extra or {})}

    def mistakes(self) -> Iterator[Mistake]:
        """Bind the arguments to the constructor; ConfigError if torchvision does not have it."""
        made, row = constructor(self.name), self.row
        offered = {key for key in Dataset.given if takes(made, key)}
        given = offered.union(FUNCTIONS, *row.splits.values()) - {row.by}
        fields = type(self).model_fields
        for argument, text in wrong_arguments(made, self.options, given=given, beside=fields):
            yield Mistake(f"data.{argument}", text)

    @property
    def makers(self) -> dict[str, Callable[[], object]]:
        shared = {"root": self.root, "download": self.download, "num_classes": self.class_count}
        options = {"name": self.name, "options": self.options, **shared}
        return {self.override: partial(imported(BY_NAME), **options)}


class HuggingFace(ItemData):
    """A dataset of the Hugging Face Hub, or a folder that its package ``datasets`` reads."""

    kind: Literal["huggingface"] = Field(description=KIND)
    name: Text = Field(description="folder, or name on the Hugging Face Hub")
    config: Text | None = Field(default=None, description="configuration of the dataset")
    image_column: Text | None = Field(default=None, description="column of the images")
    label_column: Text | None = Field(default=None, description="column of the labels")

    @property
    def override(self) -> str:
        return f"data.name={self.name}"

    @property
    def source(self) -> str:
        return self.override

    @property
    def makers(self) -> dict[str, Callable[[], object]]:
        keys = {"name", "config", "image_column", "label_column", "download"}
        options = self.model_dump(include=keys)
        made = partial(imported(HUB), num_classes=self.class_count, **options)
        return {self.source: made}


class Arrays(ItemData):
    name: Literal["arrays"] = Field(description="dataset")
    file: Text = Field(description="file of images and labels, .npz or .safetensors")

    @property
    def source(self) -> str:
        return f"data.file={self.file}"

    @property
    def makers(self) -> dict[str, Callable[[], object]]:
        return {self.source: partial(imported(ARRAYS), self.file)}


ARRAYS = "convtrain.data.sources.arrays:datasets_of"
BY_NAME = "convtrain.data.sources.torchvision_by_name:datasets_of"
HUB = "convtrain.data.sources.huggingface:datasets_of"


def _kind_of(data: object) -> str:
    """Return the library that names a dataset, or ``ours``: its name then tells the section."""
    kind = data.get("kind") if isinstance(data, dict) else getattr(data, "kind", None)
    return kind if kind in ("torchvision", "huggingface") else "ours"


Ours = Annotated[
    Digits | TorchvisionData | ImageFolder | LabelTable | Synthetic | CustomData | Arrays,
    Field(discriminator="name"),
]
Data = Annotated[
    Annotated[Ours, Tag("ours")]
    | Annotated[TorchvisionByName, Tag("torchvision")]
    | Annotated[HuggingFace, Tag("huggingface")],
    Discriminator(_kind_of),
]
