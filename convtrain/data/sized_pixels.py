"""Images of their own sizes: in memory, in a file, or decoded anew each time they are read."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from convtrain.data.crops import StoreRules, middle
from convtrain.data.decoding import Rules, by_our_rules, decode_stored
from convtrain.errors import CorruptDataError

SIZE_BYTES = 8  # of an image's height and width, int32


class Source(Protocol):
    """Where stored images are, by position; each is uint8 (height, width, channels)."""

    @property
    def resident(self) -> Tensor | None:
        """The bytes of each image that are in memory, int64 (N,)."""

    def __call__(self, position: int) -> Tensor: ...
    def __len__(self) -> int: ...


class Stored:
    """Images one behind another, uint8, in memory or in a file.

    Args:
        sizes: height and width of each image, int32 (N, 2).
        pixels: all of them, uint8 (bytes,); or the file, whose pixels begin at ``start``.
    """

    def __init__(
        self, sizes: Tensor, channels: int, pixels: "Tensor | FileBytes", start: int = 0
    ) -> None:
        self.sizes, self.channels, self.pixels = sizes, channels, pixels
        self.bytes = image_bytes(sizes, channels)
        self.starts = self.bytes.cumsum(0) - self.bytes + start

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def resident(self) -> Tensor | None:
        return self.bytes if isinstance(self.pixels, Tensor) else None

    def __call__(self, position: int) -> Tensor:
        height, width = self.sizes[position].tolist()
        start, count = int(self.starts[position]), int(self.bytes[position])
        if isinstance(self.pixels, Tensor):
            found = self.pixels[start : start + count]
        else:
            found = self.pixels.read(start, count)
        return found.view(height, width, self.channels)


def image_bytes(sizes: Tensor, channels: int) -> Tensor:
    """Return the bytes of images of these sizes (N, 2), int64 (N,)."""
    return sizes[:, 0].long() * sizes[:, 1] * channels


class FileBytes:
    """The bytes of a file, which several processes may read at once."""

    def __init__(self, path: Path, file: FileIO | None = None) -> None:
        """Open a file; ``file`` is an open one without a name, in the folder ``path``."""
        self.path, self._named = path, file is None
        self._file = file or FileIO(path)

    def read(self, start: int, count: int) -> Tensor:
        """Return bytes, uint8; CorruptDataError if the file ends before them."""
        found = np.empty(count, dtype=np.uint8)
        if hasattr(os, "preadv"):  # forked processes share the file's position
            length = os.preadv(self._file.fileno(), [found.data], start)
        else:
            self._file.seek(start)
            length = self._file.readinto(found.data)
        if length != count:
            raise CorruptDataError(f"{self.path}: is too short; delete it, and it is made again")
        return torch.from_numpy(found)

    def __reduce__(self) -> tuple[type["FileBytes"], tuple[Path]]:
        if not self._named:
            raise TypeError("a file without a name cannot be opened by another process")
        return FileBytes, (self.path,)


@dataclass(frozen=True)
class Decoded:
    """Image files that are decoded each time."""

    files: Sequence[Path]
    rules: Rules

    resident = None

    def __len__(self) -> int:
        return len(self.files)

    def __call__(self, position: int) -> Tensor:
        path = self.files[position]
        try:
            with by_our_rules():
                return decode_stored(path, self.rules)
        except CorruptDataError as error:
            raise CorruptDataError(f"{path}: {error}") from error


@dataclass(frozen=True)
class SizedPixels:
    """Images of their own sizes, of which a crop becomes the model's input."""

    source: Source
    rules: StoreRules
    positions: Tensor  # int64 (N,), in the source

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of images, and channels, height and width of their crops."""
        channels, height, width = self.rules.shape
        return len(self), channels, height, width

    @property
    def resident_bytes(self) -> int:
        resident = self.source.resident
        return 0 if resident is None else int(resident[self.positions].sum())

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, part: slice) -> "SizedPixels":
        return replace(self, positions=self.positions[part])

    def in_order(self, indices: Tensor) -> "SizedPixels":
        """Return these images, in this order, without reading them."""
        return replace(self, positions=self.positions[indices])

    def stored(self, index: int) -> Tensor:
        """Return a stored image, uint8 (height, width, channels)."""
        return self.source(int(self.positions[index]))

    def middle(self, index: int) -> Tensor:
        """Return the middle crop of an image, uint8 (channels, height, width)."""
        return middle(self.stored(index), self.rules)

    def read(self, indices: Tensor) -> Tensor:
        """Return the middle crops of images, uint8 (n, channels, height, width)."""
        pixels = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        for crop, index in zip(pixels, indices.tolist(), strict=True):
            crop.copy_(self.middle(index))
        return pixels


def of_all(source: Source, rules: StoreRules) -> SizedPixels:
    """Return all images of a source."""
    return SizedPixels(source, rules, torch.arange(len(source)))
