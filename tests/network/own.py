"""Layers and models that a user could write, for tests that name them by import path."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Scale(nn.Module):
    """A learned factor; it counts the images that it was trained on."""

    def __init__(self, by: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(by)))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + len(input)  # a new tensor in place of the old one
        return input * self.weight


class Stage(nn.Module):
    """Layers inside a layer, of which one reads the other's output."""

    def __init__(self, in_channels: int, width: int = 4, p: float = 0.3) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.ReLU(), nn.Dropout(p))
        self.norm = nn.BatchNorm2d(width)

    def forward(self, input: Tensor) -> Tensor:
        before = self.inner[0](input)
        return self.norm(self.inner[2](self.inner[1](before)) + before)


class Frozen(nn.BatchNorm2d):
    """Batch norm whose statistics never change; it counts its steps outside of any tensor."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.steps = 0

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    def forward(self, input: Tensor) -> Tensor:
        self.steps += 1
        return super().forward(input)

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


class Values(nn.Module):
    """Its path depends on values, so that it cannot run on the meta device."""

    def __init__(self, input_shape: tuple[int, ...], **options: Any) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(input_shape))
        self.options = options

    def forward(self, input: Tensor) -> Tensor:
        return input if input.sum() > self.options.get("most", 1e9) else input + self.bias


class Wrong(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        if how == "lazy":
            self.layer = nn.LazyLinear(3)
        if how == "constructor":
            raise RuntimeError("broken")

    def forward(self, input: Tensor) -> Any:
        if self.how == "dict":
            return {"logits": input}
        if self.how == "evaluation" and not self.training:
            raise RuntimeError("broken")
        return input if self.training else input[:, 0]


class NotALayer:
    pass


def swish(input: Tensor, beta: float = 1.0) -> Tensor:
    return input * torch.sigmoid(beta * input)


class Standardised(nn.Conv2d):
    """A convolution of torch with other weights; it takes the arguments of torch's."""

    def __init__(self, *arguments: Any, gain: float = 1.0, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.gain = gain

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight / (self.weight.std() + 0.1) * self.gain
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


class Net(nn.Module):
    """A model that follows the mean of what it sees, in a buffer."""

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(width, num_classes),
        )  # fmt: skip
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * images.detach().mean()
        return self.layers(images - self.mean)


def linear(input_shape: tuple[int, ...], num_classes: int, scale: float = 1.0) -> nn.Module:
    channels, height, width = input_shape
    layer = nn.Linear(channels * height * width, num_classes)
    return nn.Sequential(nn.Flatten(), layer, Scale(scale))


def number() -> int:
    return 3


class Styled(Net):
    def __init__(self, style: str, num_classes: int) -> None:
        super().__init__(num_classes)
        self.style = style
