"""All images of a dataset, without a division into training, validation and test."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from convtrain.config.array_file import read_array_file
from convtrain.config.data_sections import ImageFiles
from convtrain.config.folders import read_layout
from convtrain.config.groups.data import Arrays, Data, ImageFolder, LabelTable, TorchvisionByName
from convtrain.config.label_table import read_table
from convtrain.data.images import Images, Splits
from convtrain.errors import ConfigError


def is_undivided(data: Data) -> bool:
    """Tell whether the data are files that are divided only when they are read."""
    if isinstance(data, LabelTable):
        return read_table(data.format).splits.keys() == {"train"}
    if isinstance(data, Arrays):
        return read_array_file(data.file).splits.keys() == {"train"}
    if isinstance(data, TorchvisionByName):
        return not data.row.splits
    if not isinstance(data, ImageFolder):
        return False
    allows = data.allow_missing_classes
    layout = read_layout(Path(data.root), data.classes, allow_missing=allows)
    return layout.splits.keys() == {"train"}


def read_undivided(data: Data) -> Splits:
    """Read all images, in the order of train, val and test, as each of the splits.

    A ConfigError says that images other than files exceed the memory.
    """
    if isinstance(data, ImageFiles):
        read: Splits = data.build(divides=False)
        return read
    splits = data.build()
    assert isinstance(splits, Splits)
    parts = list({id(images): images for images in splits.images}.values())
    if data.stored_side is not None:
        raise ConfigError(
            f"--split all: the images of data={data.name} are stored with sizes of their own, for "
            f"each split by itself; evaluate each split"
        )
    if not all(isinstance(images.pixels, Tensor) for images in parts):
        raise ConfigError(
            f"--split all: the images take more than data.memory_gib={data.memory_gib:g}; raise "
            f"it, or evaluate each split"
        )
    everything = Images(
        torch.cat([images.read(torch.arange(len(images))) for images in parts]),
        torch.cat([images.labels for images in parts]),
    )
    return replace(splits, train=everything, val=everything, test=everything)
