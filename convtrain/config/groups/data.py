"""The datasets: where images come from, how they are divided, and what their pixels become."""

from typing import Annotated, Literal

from pydantic import Field

from convtrain.config.section import Count, Section, Seed, Text

Level = Annotated[int, Field(ge=0, le=255)]


class BaseData(Section):
    root: Text = Field(description="folder of the dataset's files")
    download: bool = Field(description="fetch files that are missing")
    allow_change: bool = Field(
        default=False, description="resume a run though its data are not the same any more"
    )
    batch_size: Count = Field(description="images per batch over all devices")
    eval_batch_size: Count = Field(description="images per validation and test batch")
    val_fraction: float = Field(gt=0, lt=1, description="part of the training images, 0-1")
    split_seed: Seed = Field(description="seed of the splits")
    limit: Count | None = Field(description="images of each split, the classes in proportion")
    drop_last: bool = Field(description="leave out an epoch's last, smaller batch")
    overfit_batches: Count | None = Field(description="train and validate on N batches alone")
    memory_gib: float = Field(gt=0, le=1e6, description="GiB of decoded images kept in memory")
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
        description="deviation of each channel, on images in 0-1"
    )


class Digits(BaseData):
    name: Literal["digits"] = Field(description="where the images come from")
    test_fraction: float = Field(gt=0, lt=1, description="part of all images, 0-1")


class TorchvisionData(BaseData):
    name: Literal["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"] = Field(
        description="where the images come from"
    )


class ImageFolder(BaseData):
    name: Literal["image_folder"] = Field(description="where the images come from")
    resize: Literal["crop", "stretch"] = Field(description="how an image is brought to data.shape")
    test_fraction: float = Field(gt=0, lt=1, description="part of all images, 0-1")
    max_pixels: Count = Field(description="largest image accepted, in pixels (height x width)")
    background: Level | Annotated[list[Level], Field(min_length=3, max_length=3)] = Field(
        default=255, description="what shows through transparent pixels: grey, or red, green, blue"
    )
    value_range: list[Annotated[float, Field(ge=-1e12, le=1e12)]] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="values that become black and white, in images of more than 8 bits a channel",
    )
    cache_dir: Text | None = Field(description="folder of decoded images beyond data.memory_gib")
    cache_gib: float = Field(gt=0, le=1e6, description="GiB of decoded images kept on disk")


class Synthetic(BaseData):
    name: Literal["synthetic"] = Field(description="where the images come from")
    fill: Literal["noise", "ones"] = Field(description="what the images show")
    train_size: Count = Field(description="training and validation images")
    test_size: Count = Field(description="test images")


Data = Annotated[Digits | TorchvisionData | ImageFolder | Synthetic, Field(discriminator="name")]
