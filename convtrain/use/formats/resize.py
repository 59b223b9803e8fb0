"""The resize of the training as operations of torch, for images of any size.

The training resizes by Pillow's BILINEAR filter, in integers: each pass sums the levels, times
weights in units of 2^-22, and rounds to whole levels. ``F.interpolate(antialias=True)`` has the
same filter, but not the fractional crop of ``ImageOps.fit``, and it rounds otherwise.

Pillow resizes the width first. Some versions resize the height of a tall image first, where that is
less work; then a fifth of the pixels may differ by one level of 255.
"""

import torch
from torch import Tensor, nn

UNIT = 2.0**22  # Pillow's PRECISION_BITS


class Resize(nn.Module):
    """Gives images, uint8 (N, channels, any height, any width), a fixed height and width.

    ``crop`` keeps their proportions and cuts the middle; otherwise they are stretched.
    """

    def __init__(self, height: int, width: int, *, crop: bool) -> None:
        super().__init__()
        self.height, self.width, self.crop = height, width, crop

    def forward(self, images: Tensor) -> Tensor:
        # Tensors, not numbers, so that torch.export keeps the size of the images free.
        rows, columns = _length(images, -2), _length(images, -1)
        used_rows, used_columns = rows, columns
        if self.crop:
            proportion = self.width / self.height
            used_columns = torch.minimum(columns, proportion * rows)
            used_rows = torch.minimum(rows, columns / proportion)
        left, top = (columns - used_columns) * 0.5, (rows - used_rows) * 0.5
        levels = images.to(torch.float64)  # holds the sums of Pillow's integers exactly
        # No transposition beside a product: some ONNX Runtimes fuse them, for float32 alone.
        across = _weights(images.shape[-1], left, left + used_columns, self.width, pixels_in=0)
        levels = _rounded(levels @ across)
        down = _weights(images.shape[-2], top, top + used_rows, self.height, pixels_in=1)
        return _rounded(down @ levels).to(torch.uint8)


def _length(images: Tensor, dimension: int) -> Tensor:
    return torch.full((), images.shape[dimension], dtype=torch.float64)


def _weights(length: int, start: Tensor, end: Tensor, count: int, *, pixels_in: int) -> Tensor:
    """Return how much of each of ``length`` pixels is in each of ``count``, as Pillow's integers.

    Dimension ``pixels_in`` of the matrix is ``length``; the others divide ``start`` to ``end``.
    """
    start, end = start.float().double(), end.float().double()  # Pillow takes the box in float32
    scale = (end - start) / count
    centres = start + (torch.arange(count, dtype=torch.float64) + 0.5) * scale
    pixels = torch.arange(length, dtype=torch.float64) + 0.5
    distances = pixels.unsqueeze(1 - pixels_in) - centres.unsqueeze(pixels_in)
    weights = (1.0 - (distances / scale.clamp(min=1.0)).abs()).clamp(min=0.0)
    return torch.floor(weights / weights.sum(pixels_in, keepdim=True) * UNIT + 0.5)


def _rounded(sums: Tensor) -> Tensor:
    return torch.floor(sums / UNIT + 0.5).clamp(0.0, 255.0)
