"""A dataset: any map-style Dataset of items (image, class). convtrain reads each item once."""

import torch
from torch import Tensor
from torch.utils.data import Dataset


class Stripes(Dataset[tuple[Tensor, int]]):
    """Grey images of stripes that lie, stand or slant, under noise."""

    classes = ("lying", "standing", "slanting")  # names, which reports and pictures show

    def __init__(
        self, count: int = 1200, side: int = 16, noise: float = 2.0, seed: int = 0
    ) -> None:
        draw = torch.Generator().manual_seed(seed)  # the same images in every run and process
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        waves = torch.stack([torch.sin(1.3 * along) for along in (y, x, 0.7 * (x + y))])
        self.labels = torch.arange(count) % len(self.classes)
        levels = waves[self.labels] + noise * torch.randn(count, side, side, generator=draw)
        self.images = (128 + 20 * levels).clamp(0, 255).to(torch.uint8)  # black 0, white 255

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])
