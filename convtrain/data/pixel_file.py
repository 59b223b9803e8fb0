"""Decoded images that do not fit into memory, in a file of uint8."""

import math
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from convtrain.errors import CorruptDataError


class PixelFile:
    """Consecutive images of (channels, height, width) in a file, read on demand.

    Only the operating system's page cache holds them in memory. The file may be deleted while open.
    """

    def __init__(
        self, path: Path, image_shape: tuple[int, ...], file: FileIO | None = None
    ) -> None:
        """Open a file; ``file`` is an open one without a name, in the folder ``path``."""
        self.path = path
        self._file = file or path.open("rb", buffering=0)
        self._image_bytes = math.prod(image_shape)
        size = os.fstat(self._file.fileno()).st_size
        self._positions: Sequence[int] = range(size // self._image_bytes)
        self.shape = (len(self._positions), *image_shape)  # as of a tensor of all images

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, part: slice) -> "PixelFile":
        return self._at(self._positions[part])

    def in_order(self, indices: Tensor) -> "PixelFile":
        """Return these images, in this order, without reading them."""
        return self._at([self._positions[index] for index in indices.tolist()])

    def _at(self, positions: Sequence[int]) -> "PixelFile":
        chosen = object.__new__(PixelFile)
        chosen.__dict__.update(self.__dict__)
        chosen._positions = positions
        chosen.shape = (len(chosen), *self.shape[1:])
        return chosen

    def read(self, indices: Tensor) -> Tensor:
        """Return images, uint8; CorruptDataError if the file has become shorter."""
        pixels = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        for image, index in zip(pixels.numpy(), indices.tolist(), strict=True):
            self._file.seek(self._positions[index] * self._image_bytes)
            if self._file.readinto(image) != self._image_bytes:
                raise CorruptDataError(
                    f"{self.path}: ends before image {index}; delete it, and it is made again"
                )
        return pixels

    def read_all(self) -> Tensor:
        """Return all images, uint8, and close the file."""
        with self._file:
            return self.read(torch.arange(len(self)))

    def expect(self, indices: Tensor) -> None:
        """Tell the operating system to fetch these images in the background."""
        if hasattr(os, "posix_fadvise"):
            for index in indices.tolist():
                start = self._positions[index] * self._image_bytes
                os.posix_fadvise(
                    self._file.fileno(), start, self._image_bytes, os.POSIX_FADV_WILLNEED
                )
