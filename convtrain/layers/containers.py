"""Layers made of layers: torch's containers, and the composite blocks that networks are built from.

A block is computed by its twin in both styles; the module only holds the children.
"""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from convtrain.layers.entry import Entry

Layer = Callable[[Tensor], Tensor]


def sequential(input: Tensor, *, children: Iterable[Layer]) -> Tensor:
    for layer in children:
        input = layer(input)
    return input


def no_forward(*inputs, **keywords):
    """These only hold what others use."""
    raise NotImplementedError("a list or dictionary of layers or parameters has no forward")


def flatten(input, *, start_dim, end_dim):
    return input.flatten(start_dim, end_dim)


def unflatten(input, *, dim, unflattened_size):
    return input.unflatten(dim, unflattened_size)


def residual(input: Tensor, *, body: Layer, shortcut: Layer) -> Tensor:
    """Add the body's output to the shortcut's (He et al., 2015).

    Raises:
        ValueError: the two have different shapes, which an addition would hide by broadcasting.
    """
    through, around = body(input), shortcut(input)
    if through.shape != around.shape:
        raise ValueError(
            f"body ends in {tuple(through.shape[1:])}, shortcut in {tuple(around.shape[1:])}; "
            f"give the shortcut a projection, as 'shortcut: [Conv2d: {{out_channels: "
            f"{through.shape[1]}, kernel_size: 1, stride: ...}}]'"
        )
    return through + around


class Residual(nn.Module):
    """``body(x) + shortcut(x)``; an empty shortcut passes the input on."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Sequential() if shortcut is None else shortcut

    def forward(self, input: Tensor) -> Tensor:
        return residual(input, body=self.body, shortcut=self.shortcut)


LAYERS = (
    Entry(nn.Sequential, sequential, chains=("layers",)),
    Entry(nn.ModuleList, no_forward),
    Entry(nn.ModuleDict, no_forward),
    Entry(nn.ParameterList, no_forward),
    Entry(nn.ParameterDict, no_forward),
    Entry(Residual, residual, chains=("body", "shortcut")),
    Entry(nn.Flatten, flatten),
    Entry(nn.Unflatten, unflatten),
)
