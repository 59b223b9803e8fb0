"""Transforms of single images, with random numbers that follow from (seed, epoch, image index).

torchvision's ``transforms.v2`` draw from this process's default generator of torch. Each image is
transformed on one thread after that generator was seeded for it, so that neither its batch nor the
process that transforms it changes a bit of the result.
"""

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from convtrain.config.transforms import Named
from convtrain.data.randomness import derive_seed
from convtrain.data.sampling import image_of
from convtrain.errors import ConfigError, TrainingError, error_line, first_line

TRANSFORMS = 9  # a draw number like those of ``convtrain.data.augment.OPERATIONS``
PROBES = 8  # random images that a list of transforms must accept before a training
MAX_FLOAT = 2.0  # transforms that return floats keep them in about 0 to 1


class Transforms:
    """A list of transforms of images (channels, height, width), applied one after another.

    Args:
        named: the transforms, each with its key and value in the configuration.
        shape: channels, height and width of the results.
        inputs: those of images that the list must accept; by default, the same.

    Raises:
        ConfigError: a transform does not accept such images, or the last result is of another
            shape or type.
    """

    def __init__(
        self,
        named: Sequence[Named],
        shape: Sequence[int],
        inputs: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.named, self.shape = tuple(named), tuple(shape)
        self.dtype: torch.dtype | None = None  # of the results: uint8, or float32 in 0 to 1
        with _restored_randomness():
            for probe in range(PROBES):
                _seed_all(probe)
                taken = inputs[probe % len(inputs)] if inputs else self.shape
                image = torch.randint(0, 256, tuple(taken), dtype=torch.uint8)
                self.dtype = self._transformed(image).dtype

    def __call__(
        self,
        pixels: Iterable[Tensor],
        draws: Sequence[int],
        *,
        seed: int,
        epoch: int,
        out: Tensor | None = None,
    ) -> Tensor:
        """Transform images on the CPU; return (N, channels, height, width) of ``dtype``.

        Args:
            pixels: uint8 (channels, height, width) of each image.
            draws: of the images, which their random numbers depend on; see
                :mod:`convtrain.data.sampling`.
            out: write the result there.

        Raises:
            TrainingError: a transform has failed; the message names it and the image.
        """
        out = torch.empty((len(draws), *self.shape), dtype=self.dtype) if out is None else out
        with _restored_randomness():
            for image, draw, result in zip(pixels, draws, out, strict=True):
                _seed_all(derive_seed(seed, epoch, draw, TRANSFORMS))
                try:
                    result.copy_(self._transformed(image))
                except ConfigError as error:
                    where = f"image {image_of(draw)} of the training images, epoch {epoch}"
                    raise TrainingError(f"{error} ({where})") from error
        return out

    def _transformed(self, image: Tensor) -> Tensor:
        resized = self.named[0]
        result: object = image
        for each in self.named:
            before = result
            try:
                result = each.transform(before)
            except Exception as error:  # a user's transform may raise anything
                is_own = not type(each.transform).__module__.startswith("torchvision.")
                said = error_line(error) if is_own else first_line(error)
                raise ConfigError(f"{each.where}: {said}") from error
            if getattr(result, "shape", None) != getattr(before, "shape", None):
                resized = each
        if not isinstance(result, Tensor):
            kind = type(result).__name__
            raise ConfigError(
                f"{self.named[-1].where}: returns a {kind}; the list must end with a tensor of "
                f"data.shape={list(self.shape)}"
            )
        if result.shape != self.shape:
            raise ConfigError(
                f"{resized.where}: makes images of {list(result.shape)}; the list must end with "
                f"data.shape={list(self.shape)}"
            )
        if result.dtype not in (torch.uint8, torch.float32) or self.dtype not in (
            None,
            result.dtype,
        ):
            expected = self.dtype or "torch.uint8, or torch.float32 in 0 to 1"
            raise ConfigError(
                f"{self.named[-1].where}: the list ends with {result.dtype}, expected {expected}"
            )
        if self.dtype is None and result.is_floating_point() and result.max() > MAX_FLOAT:
            raise ConfigError(
                f"{self.named[-1].where}: the list ends with floats up to {result.max():.3g}, "
                f"expected 0 to 1; write {{ToDtype: {{dtype: torch.float32, scale: true}}}}"
            )
        return result


def _seed_all(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    random.seed(seed)  # torchvision draws from torch alone; a user's transform from anything
    np.random.seed(seed % 2**32)


@contextlib.contextmanager
def _restored_randomness() -> Iterator[None]:
    """Run the block on one thread without autograd; restore all generators afterwards."""
    threads, python, arrays = torch.get_num_threads(), random.getstate(), np.random.get_state()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(arrays)
