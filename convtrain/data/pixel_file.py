"""Decoded images that do not fit into memory: a file of uint8, read image by image."""

import math
import os
from pathlib import Path

import torch
from torch import Tensor

from convtrain.errors import CorruptDataError


class PixelFile:
    """Images in a file, one after the other; a batch is read when it is asked for.

    Nothing stays in memory except what the operating system caches of the file. The file may be
    deleted while it is open.

    Args:
        path: of the file, which holds nothing but the images' bytes.
        image_shape: channels, height and width.

    Attributes:
        shape: number of images, channels, height, width.
    """

    def __init__(self, path: Path, image_shape: tuple[int, ...]) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        self._image_bytes = math.prod(image_shape)
        self._positions = range(path.stat().st_size // self._image_bytes)
        self.shape = (len(self._positions), *image_shape)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, part: slice) -> "PixelFile":
        """Return some of the images, without reading them."""
        chosen = object.__new__(PixelFile)
        chosen.__dict__.update(self.__dict__)
        chosen._positions = self._positions[part]
        chosen.shape = (len(chosen), *self.shape[1:])
        return chosen

    def read(self, indices: Tensor) -> Tensor:
        """Return the images with these indices, uint8 of shape (n, channels, height, width).

        Raises:
            CorruptDataError: the file has become shorter.
        """
        pixels = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        for image, index in zip(pixels.numpy(), indices.tolist(), strict=True):
            self._file.seek(self._positions[index] * self._image_bytes)
            if self._file.readinto(image) != self._image_bytes:
                raise CorruptDataError(
                    f"{self.path}: ends before image {index}; delete it, and it is made again"
                )
        return pixels

    def expect(self, indices: Tensor) -> None:
        """Announce what is read next, so that the operating system fetches it meanwhile."""
        if hasattr(os, "posix_fadvise"):
            for index in indices.tolist():
                start = self._positions[index] * self._image_bytes
                os.posix_fadvise(
                    self._file.fileno(), start, self._image_bytes, os.POSIX_FADV_WILLNEED
                )
