"""What is done to each image by itself, on the CPU: a crop of the stored image, then transforms."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from convtrain.data.crops import RandomCrop, cut, random_box
from convtrain.data.pixel_file import PixelFile
from convtrain.data.sampling import image_of
from convtrain.data.sized_pixels import SizedPixels
from convtrain.data.transforms import Transforms


class PerImage:
    """Makes the pixels of images, which depend on (seed, epoch, draw) alone.

    Args:
        pixels: what is stored.
        crop: of images of their own sizes; None is the middle crop, or, with transforms, the whole
            image.
        transforms: are applied after the crop.
    """

    def __init__(
        self,
        pixels: Tensor | PixelFile | SizedPixels,
        crop: RandomCrop | None = None,
        transforms: Transforms | None = None,
    ) -> None:
        self.pixels, self.crop, self.transforms = pixels, crop, transforms
        self.shape = tuple(pixels.shape[1:]) if transforms is None else transforms.shape
        self.dtype = torch.uint8 if transforms is None else transforms.dtype

    @property
    def is_sized(self) -> bool:
        """Whether each call reads the images itself."""
        return isinstance(self.pixels, SizedPixels)

    def read(self, indices: Tensor) -> Tensor:
        """Return stored images of one size, uint8 (n, channels, height, width)."""
        assert not isinstance(self.pixels, SizedPixels)
        if isinstance(self.pixels, Tensor):
            return self.pixels.index_select(0, indices)
        return self.pixels.read(indices)

    def __call__(
        self,
        originals: Tensor | None,
        draws: Sequence[int],
        *,
        seed: int,
        epoch: int,
        out: Tensor | None = None,
    ) -> Tensor:
        """Return pixels (n, channels, height, width) of ``dtype``, on the CPU.

        Args:
            originals: of images of one size, what :meth:`read` returns; otherwise None.
            draws: of the images; see :mod:`convtrain.data.sampling`.
            out: the result is written there.

        Raises:
            TrainingError: a transform has failed; the message names it and the image.
        """
        images = self._cropped(draws, seed, epoch) if originals is None else originals
        if self.transforms is not None:
            # A transform may write to its image, which can be a part of what is stored.
            copies = images if originals is not None else (image.clone() for image in images)
            return self.transforms(copies, draws, seed=seed, epoch=epoch, out=out)
        out = torch.empty((len(draws), *self.shape), dtype=torch.uint8) if out is None else out
        for result, image in zip(out, images, strict=True):
            result.copy_(image)
        return out

    def _cropped(self, draws: Sequence[int], seed: int, epoch: int) -> Iterator[Tensor]:
        pixels = self.pixels
        assert isinstance(pixels, SizedPixels)
        for draw in draws:
            index = image_of(draw)
            if self.crop is not None:
                image = pixels.stored(index)
                box = random_box(image, self.crop, draw, seed=seed, epoch=epoch)
                yield cut(image, box, pixels.rules.shape[1:], pixels.rules.interpolation)
            elif self.transforms is not None:
                yield pixels.stored(index).permute(2, 0, 1)
            else:
                yield pixels.middle(index)
