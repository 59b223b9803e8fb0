"""A layer: any nn.Module. configs/network/mine.yaml names it by its path."""

import torch
from torch import Tensor, nn


class Gain(nn.Module):
    """Multiply each channel by a learned number."""

    # convtrain infers num_features (or in_channels, in_features) from the input; the other
    # arguments are those of the YAML.
    def __init__(self, num_features: int, initial: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_features, 1, 1), initial))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.weight
