"""Decoded images that do not fit into memory: a file of uint8, read image by image."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convtrain.errors import CorruptDataError


class PixelFile:
    """Images in a file, one after the other; a batch is read when it is asked for.

    It is indexed as a tensor is. Nothing stays in memory but what the operating system keeps of
    files while there is room. The file may be deleted while it is open.

    Args:
        path: of the file, which holds nothing but the images' bytes.
        image_shape: channels, height and width.

    Attributes:
        shape: number of images, channels, height, width.

    Raises:
        CorruptDataError: when it is read, where the file has become shorter.
    """

    def __init__(self, path: Path, image_shape: tuple[int, ...]) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        self._size = int(np.prod(image_shape))
        self._places = range(path.stat().st_size // self._size)
        self.shape = (len(self._places), *image_shape)

    def __len__(self) -> int:
        return len(self._places)

    def part(self, places: slice) -> "PixelFile":
        """Return some of the images, without reading them."""
        chosen = object.__new__(PixelFile)
        chosen.__dict__.update(self.__dict__)
        chosen._places = self._places[places]
        chosen.shape = (len(chosen._places), *self.shape[1:])
        return chosen

    def read(self, indices: Tensor) -> Tensor:
        """Return the images with these indices, uint8 of shape (n, channels, height, width)."""
        pixels = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        for image, index in zip(pixels.numpy(), indices.tolist(), strict=True):
            self._file.seek(self._places[index] * self._size)
            if self._file.readinto(image) != self._size:
                raise CorruptDataError(
                    f"{self.path}: ends before image {index}; delete it, it will be made again"
                )
        return pixels

    def expect(self, indices: Tensor) -> None:
        """Tell the operating system what is read next, so that it fetches that meanwhile."""
        if hasattr(os, "posix_fadvise"):
            for index in indices.tolist():
                start = self._places[index] * self._size
                os.posix_fadvise(self._file.fileno(), start, self._size, os.POSIX_FADV_WILLNEED)
