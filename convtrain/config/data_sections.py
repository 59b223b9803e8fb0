"""What the sections of the datasets share: their keys, and how sizes follow from them."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from convtrain.config.section import MAX_COUNT, Choice, Count, Seed, Text, Whole, imported

GIB = 1 << 30
Level = Annotated[int, Field(ge=0, le=255)]
Background = Level | Annotated[list[Level], Field(min_length=3, max_length=3)]
Interpolation = Literal["bilinear", "bicubic"]
ValueRange = list[Annotated[float, Field(ge=-1e12, le=1e12)]]
BACKGROUND = "colour behind transparent pixels: a grey level, or red, green, blue"
VALUE_RANGE = "values that become black and white in images of more than 8 bits a channel"
CACHE_DIR = "folder of decoded images beyond data.memory_gib"
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


LOADER = "convtrain.data.sources.custom:load"
LOADED = {
    "classes", "shape", "resize", "interpolation", "store_size", "eval_crop", "background",
    "value_range", "val_fraction", "test_fraction", "split_seed", "memory_gib", "read_workers",
    "cache_dir", "cache_gib",
}  # fmt: skip
"""Keys that the loader of custom datasets takes as they are."""


def held_out(count: int, fraction: float) -> int:
    """Return how many images of a class a stratified split takes out: at least one, but not all."""
    return min(max(round(count * fraction), 1), count - 1)


def divided(counts: Sequence[int], validation: float | Fold, test: int) -> SplitSizes:
    if isinstance(validation, Fold):
        return SplitSizes(*validation.sizes(sum(counts)), test)
    val = sum(held_out(count, validation) for count in counts)
    return SplitSizes(sum(counts) - val, val, test)
