"""The datasets: their keys, and the shapes, classes and sizes that are known before reading.

They are one file because they share their base sections and are the choices of one union.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import signature
from typing import Annotated, Literal, NamedTuple

from pydantic import ConfigDict, Discriminator, Field, Tag

from convtrain.config.label_table import TableFormat
from convtrain.config.mistakes import Mistake
from convtrain.config.section import MAX_COUNT, Choice, Count, Seed, Text, Whole, imported
from convtrain.config.signatures import takes, wrong_arguments
from convtrain.config.targets import Target, Trusting
from convtrain.config.torchvision_datasets import ROWS, Row, constructor
from convtrain.config.trust import DATASET

GIB = 1 << 30
Level = Annotated[int, Field(ge=0, le=255)]
Background = Level | Annotated[list[Level], Field(min_length=3, max_length=3)]
Interpolation = Literal["bilinear", "bicubic"]
ValueRange = list[Annotated[float, Field(ge=-1e12, le=1e12)]]
BACKGROUND = "colour behind transparent pixels: a grey level, or red, green, blue"
VALUE_RANGE = "values that become black and white in images of more than 8 bits a channel"
COLUMN = "name of the column of {}; null finds it by its usual names"
CACHE_DIR = "folder of decoded images beyond data.memory_gib"
FUNCTIONS = {"transform", "target_transform", "transforms", "loader"}
"""Arguments of torchvision's datasets that a configuration cannot give."""
KIND = "library that names the dataset"
CACHE_GIB = "most disk space of decoded images, in GiB"


class Published(NamedTuple):
    """A published dataset, in its authors' numbers."""

    shape: tuple[int, int, int]  # channels, height and width in pixels
    training: tuple[int, ...]  # images of each class, for training and validation
    test: int  # images of the test set; 0 if it is split off as well


PUBLISHED = {
    "digits": Published((1, 8, 8), (178, 182, 177, 183, 181, 182, 181, 179, 174, 180), 0),
    "mnist": Published(
        (1, 28, 28), (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), 10_000
    ),
    "fashion_mnist": Published((1, 28, 28), (6000,) * 10, 10_000),
    "kmnist": Published((1, 28, 28), (6000,) * 10, 10_000),
    "cifar10": Published((3, 32, 32), (5000,) * 10, 10_000),
    "cifar100": Published((3, 32, 32), (500,) * 100, 10_000),
    "svhn": Published(
        (3, 32, 32), (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659), 26_032
    ),
}


class SplitSizes(NamedTuple):
    """Numbers of images in each split."""

    train: int
    val: int
    test: int


class Fold(NamedTuple):
    """The part of the training images that validates in a k-fold cross-validation."""

    number: int  # from 0
    folds: int  # in all
    limit: int | None = None  # images that are divided into folds; None divides all

    def sizes(self, images: int) -> tuple[int, int]:
        """Return how many of the images train and how many validate, before ``limit``."""
        val = len(range(self.number, images, self.folds))
        return images - val, val


OWN_VALIDATION = (
    "each fold of the training images validates once, but there are validation images of their "
    "own; make them training or test images, or set data.folds=null data.fold=null"
)


class BaseData(Choice):
    """``build`` takes the fields of its own section, and those below that the builder names."""

    root: Text = Field(description="folder of the dataset's files")
    download: bool = Field(description="download missing files")
    allow_change: bool = Field(default=False, description="resume a run although its data changed")
    batch_size: Count = Field(description="images per batch over all devices")
    eval_batch_size: Count = Field(description="images per validation and test batch")
    val_fraction: float = Field(gt=0, lt=1, description="part of the training images, 0-1")
    split_seed: Seed = Field(description="seed of the splits")
    folds: Annotated[int, Field(ge=2, le=MAX_COUNT)] | None = Field(
        default=None, description="number of parts that the training images are divided into"
    )
    fold: Whole | None = Field(
        default=None, description="part that validates in place of data.val_fraction, from 0"
    )
    limit: Count | None = Field(description="images used of each split, the classes in proportion")
    sampling: Literal["shuffled", "balanced"] = Field(
        default="shuffled", description="balanced draws each class equally often in an epoch"
    )
    drop_last: bool = Field(description="leave out the last batch of an epoch if it is smaller")
    overfit_batches: Count | None = Field(description="train and validate on N batches alone")
    memory_gib: float = Field(gt=0, le=1e6, description="largest size of images in memory, in GiB")
    shape: list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        min_length=3, max_length=3, description="channels, height and width in pixels"
    )
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        description="number of classes"
    )
    classes: list[Text] | None = Field(min_length=1, description="a name for each class")
    mean: list[Annotated[float, Field(ge=-1000, le=1000)]] = Field(
        description="mean of each channel, on images in 0-1"
    )
    std: list[Annotated[float, Field(ge=1e-6, le=1000)]] = Field(
        description="standard deviation of each channel, on images in 0-1"
    )

    @property
    def override(self) -> str:
        """The override that chose it, for messages."""
        return f"data={self.name}"  # type: ignore[attr-defined]

    @property
    def source(self) -> str:
        """The override that says where the images come from, for errors."""
        return f"data.root={self.root}"

    @property
    def is_multi_label(self) -> bool:
        """Whether it is known that an image has any number of labels."""
        return False

    @property
    def stored_side(self) -> int | None:
        """The shorter side of images that are stored with sizes of their own."""
        return None

    @property
    def class_count(self) -> int:
        return self.num_classes or len(self.classes or ())

    @property
    def class_names(self) -> list[str]:
        return self.classes or [str(index) for index in range(self.class_count)]

    @property
    def validation(self) -> "float | Fold":
        """The images that validate: a part of the training images, or a fold of them."""
        if self.folds is None or self.fold is None:
            return self.val_fraction
        return Fold(self.fold, self.folds, self.limit)

    @property
    def arguments(self) -> dict[str, object]:
        own = {"classes": self.class_names, "val_fraction": self.validation}
        fields = dict(self, num_classes=self.class_count, **own)
        shared = {"name", *BaseData.model_fields} - {*signature(self.builder).parameters}
        return {key: value for key, value in fields.items() if key not in shared}

    def full_sizes(self) -> SplitSizes | None:
        """Return the split sizes of all images, or None if they depend on files."""
        return None

    def split_sizes(self) -> SplitSizes | None:
        """Return the split sizes after ``limit`` and ``overfit_batches``, if known."""
        if (full := self.full_sizes()) is None:
            return None
        train, val, test = (min(size, self.limit or size) for size in full)
        if isinstance(fold := self.validation, Fold):
            images = full.train + full.val
            train, val = fold.sizes(min(images, self.limit or images))
        if self.overfit_batches is not None:
            train = val = min(train, self.overfit_batches * self.batch_size)
        return SplitSizes(train, val, test)


class Digits(BaseData):
    builds = "convtrain.data.sources.digits:load"
    name: Literal["digits"] = Field(description="dataset")
    test_fraction: float = Field(gt=0, lt=1, description="part of all images, 0-1")

    def full_sizes(self) -> SplitSizes:
        counts = PUBLISHED["digits"].training
        tested = [held_out(count, self.test_fraction) for count in counts]
        rest = [count - out for count, out in zip(counts, tested, strict=True)]
        return _divided(rest, self.validation, sum(tested))


class TorchvisionData(BaseData):
    builds = "convtrain.data.sources.torchvision:load"
    name: Literal["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"] = Field(
        description="dataset"
    )

    def full_sizes(self) -> SplitSizes:
        published = PUBLISHED[self.name]
        return _divided(published.training, self.validation, published.test)


class AnySizes(BaseData):
    """Images of any size, from which images of ``shape`` are made."""

    resize: Literal["crop", "stretch"] = Field(description="how an image gets the size data.shape")
    interpolation: Interpolation = Field(
        default="bilinear", description="filter that resizes images, antialiased"
    )
    store_size: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None,
        description="largest shorter side of stored images, in pixels, of which crops are trained "
        "and tested; null stores images of data.shape",
    )
    eval_crop: float = Field(
        default=0.875,
        gt=0,
        le=1,
        description="side of the middle crop of a stored image in evaluation, as a part of the "
        "largest that fits",
    )
    test_fraction: float = Field(gt=0, lt=1, description="part of all images, 0-1")
    background: Background = Field(default=255, description=BACKGROUND)
    value_range: ValueRange | None = Field(
        default=None, min_length=2, max_length=2, description=VALUE_RANGE
    )

    @property
    def stored_side(self) -> int | None:
        return self.store_size


class ImageFiles(AnySizes):
    """Image files, which are decoded in the same way whatever names them."""

    max_pixels: Count = Field(description="largest image accepted, in pixels (height x width)")
    decode: Literal["once", "each_epoch"] = Field(
        default="once", description="decode files once, or each time they are read, without a cache"
    )
    cache_dir: Text | None = Field(description=CACHE_DIR)
    cache_gib: float = Field(gt=0, le=1e6, description=CACHE_GIB)
    allow_missing_classes: bool = Field(
        default=False, description="accept classes without images in some split"
    )


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
        return _divided(counts, self.validation, self.test_size)


class Dataset(Target):
    """A map-style dataset, or a function that returns training, validation and test datasets."""

    kind = DATASET
    given = ("root", "download", "num_classes")


class ItemData(AnySizes):
    """Datasets that are read item by item; see :mod:`convtrain.data.sources.custom`."""

    read_workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="number of processes that read the items; 0 reads in this one"
    )
    cache_dir: Text | None = Field(default=None, description=CACHE_DIR)
    cache_gib: float = Field(default=50.0, gt=0, le=1e6, description=CACHE_GIB)

    @property
    def makers(self) -> dict[str, Callable[[], object]]:
        """The override that names a dataset, to the function that makes it."""
        raise NotImplementedError

    def build(self, *positional: object, **runtime: object) -> object:
        """Make the datasets and read them; return their :class:`~convtrain.data.images.Splits`."""
        fields = self.model_dump(include=LOADED) | {"val_fraction": self.validation}
        return imported(LOADER)(self.makers, **fields, num_classes=self.class_count)


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


LOADER = "convtrain.data.sources.custom:load"
ARRAYS = "convtrain.data.sources.arrays:datasets_of"
BY_NAME = "convtrain.data.sources.torchvision_by_name:datasets_of"
HUB = "convtrain.data.sources.huggingface:datasets_of"
LOADED = {
    "classes", "shape", "resize", "interpolation", "store_size", "eval_crop", "background",
    "value_range", "val_fraction", "test_fraction", "split_seed", "memory_gib", "read_workers",
    "cache_dir", "cache_gib",
}  # fmt: skip
"""Keys that the loader of custom datasets takes as they are."""


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


def held_out(count: int, fraction: float) -> int:
    """Return how many images of a class a stratified split takes out: at least one, but not all."""
    return min(max(round(count * fraction), 1), count - 1)


def _divided(counts: Sequence[int], validation: float | Fold, test: int) -> SplitSizes:
    if isinstance(validation, Fold):
        return SplitSizes(*validation.sizes(sum(counts)), test)
    val = sum(held_out(count, validation) for count in counts)
    return SplitSizes(sum(counts) - val, val, test)
