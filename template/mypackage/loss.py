"""A loss: a function of logits and targets, or an nn.Module; its result is a mean over images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ScaledCrossEntropy(nn.Module):
    """Cross entropy of logits that are multiplied by a learned number."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))  # trained and saved like the network

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.scale * logits, targets)
