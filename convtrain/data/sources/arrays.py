"""Arrays of images and labels in a file, as map-style datasets."""

from typing import Protocol

import numpy as np
import torch
from safetensors import safe_open

from convtrain.config.array_file import read_array_file
from convtrain.errors import CorruptDataError, error_line


class Array(Protocol):
    """An array in memory, or in a file."""

    def __getitem__(self, rows: slice) -> np.ndarray: ...


class Rows:
    """The rows of two arrays, as a map-style dataset.

    Args:
        images: (N, height, width); or (N, channels, height, width) if ``channels_first``, and else
            (N, height, width, channels).
        labels: (N), (N, 1) or (N, classes).
    """

    def __init__(self, images: Array, labels: np.ndarray, *, channels_first: bool) -> None:
        self.images, self.labels, self.channels_first = images, labels, channels_first

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray | torch.Tensor, np.ndarray]:
        image = self.images[index : index + 1][0]  # safetensors 0.4 takes no number alone
        return torch.from_numpy(image) if self.channels_first else image, self.labels[index]


def datasets_of(file: str) -> dict[str, Rows]:
    """Return the splits of a file. Images of safetensors are read from the disk one by one.

    Raises:
        MissingDataError: the file is missing, or lacks images or labels.
        CorruptDataError: the file is damaged.
    """
    found = read_array_file(file)
    try:
        if found.channels_last:
            with np.load(file, allow_pickle=False) as archive:
                return {
                    split: Rows(archive[images.name], archive[labels.name], channels_first=False)
                    for split, (images, labels) in found.splits.items()
                }
        tensors = safe_open(file, framework="np")
        return {
            split: Rows(
                tensors.get_slice(images.name),
                tensors.get_tensor(labels.name),
                channels_first=len(images.shape) == 4,
            )
            for split, (images, labels) in found.splits.items()
        }
    except Exception as error:  # damaged files raise many kinds of errors
        raise CorruptDataError(f"{found.where}: cannot be read: {error_line(error)}") from error
