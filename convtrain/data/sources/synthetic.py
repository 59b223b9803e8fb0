"""Generated images: white ones, or noise with a pattern for each class."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from convtrain.config.data_sections import Fold
from convtrain.data.images import Images, Splits, complete_order, divide_labels

BLOCK_PIXELS = 1 << 18


def load(
    *,
    shape: list[int],
    num_classes: int,
    fill: Literal["noise", "ones"],
    train_size: int,
    test_size: int,
    val_fraction: float | Fold,
    split_seed: int,
) -> Splits:
    """Return white images for ``ones``; for ``noise``, noise over a pattern for each class."""
    labels = torch.arange(train_size) % num_classes
    if fill == "ones":
        white = Images(torch.full((train_size, *shape), 255, dtype=torch.uint8), labels)
        return Splits(white, white, white.split([min(test_size, train_size)])[0])
    generator = torch.Generator().manual_seed(split_seed)
    rows = max(BLOCK_PIXELS // math.prod(shape), 1)

    def drawn(low: int, high: int, count: int) -> Iterator[Tensor]:
        """Draw images in blocks, because torch draws int64, eight times the final size."""
        for start in range(0, count, rows):
            size = (min(rows, count - start), *shape)
            yield torch.randint(low, high, size, generator=generator)

    patterns = torch.empty((num_classes, *shape), dtype=torch.uint8)
    for part, block in zip(patterns.split(rows), drawn(64, 192, num_classes), strict=True):
        part.copy_(block)

    def draw(count: int, positions: Tensor) -> Images:
        labels = torch.arange(count) % num_classes
        pixels = torch.empty((count, *shape), dtype=torch.uint8)
        blocks = zip(labels.split(rows), positions.split(rows), drawn(-48, 49, count), strict=True)
        for block_labels, block_positions, noise in blocks:
            pixels[block_positions] = noise.add_(patterns[block_labels]).to(torch.uint8)
        return Images(pixels, labels[positions.argsort()])

    parts = divide_labels(labels, val_fraction=val_fraction, seed=split_seed)
    order = complete_order([parts["train"], parts["val"]], train_size)
    sizes = [len(parts["train"]), len(parts["val"])]
    train, val = draw(train_size, order.argsort()).split(sizes)
    return Splits(train, val, draw(test_size, torch.arange(test_size)))
