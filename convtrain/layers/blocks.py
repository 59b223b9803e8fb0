"""Composite layers that networks are built from, and the small layers inside them.

A composite layer's twin is its only computation: the module calls it with child modules, the
functional style with functions, and shape inference with layers that are being resolved.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from convtrain.layers.entry import Entry, Forward, by_position, channels


def _inside(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[1:])


def residual(input: Tensor, *, body: Forward, shortcut: Forward) -> Tensor:
    """Add the outputs of body and shortcut (He et al., 2015), which must have equal shapes."""
    through, around = body(input), shortcut(input)
    if through.shape != around.shape:
        raise ValueError(
            f"body ends in {_inside(through)}, shortcut in {_inside(around)}; "
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


def gate(input: Tensor, *, body: Forward) -> Tensor:
    """Multiply the input by the body's output, which must broadcast to the input's shape."""
    factor = body(input)
    fits = factor.ndim == input.ndim and all(
        f in (1, i) for f, i in zip(factor.shape, input.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"body ends in {_inside(factor)}, which cannot gate {_inside(input)}")
    return factor * input


class Gate(nn.Module):
    """``body(x) * x``: squeeze-and-excitation, where the body pools, squeezes and excites.

    Hu et al., "Squeeze-and-Excitation Networks", 2018.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, input: Tensor) -> Tensor:
        return gate(input, body=self.body)


class _Branches(nn.Module):
    """Holds layers under their own names without calling them in sequence."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        for name, layer in layers.named_children():
            self.add_module(name, layer)


def concat_branches(input: Tensor, *, children: Iterable[Forward], dim: int) -> Tensor:
    return torch.cat([layer(input) for layer in children], dim)


class Concat(_Branches):
    """Concatenates the outputs of layers that have the same input (Szegedy et al., 2015)."""

    def __init__(self, layers: nn.Sequential, dim: int = 1) -> None:
        super().__init__(layers)
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return concat_branches(input, children=self.children(), dim=self.dim)


def sum_branches(input: Tensor, *, children: Iterable[Forward]) -> Tensor:
    """Add the outputs of layers that have the same input; ValueError if their shapes differ."""
    outputs = [layer(input) for layer in children]
    if any(output.shape != outputs[0].shape for output in outputs):
        ends = ", ".join(str(_inside(output)) for output in outputs)
        raise ValueError(f"the branches end in {ends}; only equal shapes can be added")
    total = outputs[0]
    for output in outputs[1:]:
        total = total + output
    return total


class Sum(_Branches):
    """Adds the outputs of layers that have the same input."""

    def forward(self, input: Tensor) -> Tensor:
        return sum_branches(input, children=self.children())


def dense(input: Tensor, *, children: Iterable[Forward], dim: int) -> Tensor:
    features = [input]
    for layer in children:
        features.append(layer(torch.cat(features, dim)))
    return torch.cat(features, dim)


class Dense(_Branches):
    """Gives each layer the input and the outputs of all layers before it, concatenated.

    Huang et al., "Densely Connected Convolutional Networks", 2017.
    """

    def __init__(self, layers: nn.Sequential, dim: int = 1) -> None:
        super().__init__(layers)
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return dense(input, children=self.children(), dim=self.dim)


def stochastic_depth(input: Tensor, *, p: float, mode: str, training: bool) -> Tensor:
    """In training, zero whole examples with probability ``p`` and scale up the others."""
    if not training or p == 0:
        return input
    rows = input.shape[0] if mode == "row" else 1
    noise = torch.empty((rows,) + (1,) * (input.ndim - 1), dtype=input.dtype, device=input.device)
    noise = noise.bernoulli_(1 - p)
    if p < 1:
        noise.div_(1 - p)
    return input * noise


class StochasticDepth(nn.Module):
    """Drops a residual's body, for each example by itself (``row``) or for the batch (``batch``).

    It is the last layer of the body. Huang et al., "Deep Networks with Stochastic Depth", 2016.
    """

    def __init__(self, p: float, mode: str = "row") -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p={p}: a probability is in 0-1")
        if mode not in ("row", "batch"):
            raise ValueError(f"mode={mode!r}: choose 'row' or 'batch'")
        self.p, self.mode = p, mode

    def forward(self, input: Tensor) -> Tensor:
        return stochastic_depth(input, p=self.p, mode=self.mode, training=self.training)


class LayerScale(nn.Module):
    """Multiplies each channel of (N, C, H, W) by a learned number that starts at ``value``.

    Touvron et al., "Going deeper with Image Transformers", 2021.
    """

    def __init__(self, num_channels: int, value: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels, 1, 1) * value)

    def forward(self, input: Tensor) -> Tensor:
        return input * self.weight


class Permute(nn.Module):
    """Reorders the dimensions, with the batch as dimension 0: [0, 2, 3, 1]."""

    def __init__(self, dims: Iterable[int]) -> None:
        super().__init__()
        self.dims = tuple(dims)
        if self.dims[:1] != (0,):
            raise ValueError(f"dims={list(self.dims)}: dimension 0, the batch, stays the first")

    def forward(self, input: Tensor) -> Tensor:
        return input.permute(self.dims)


class Select(nn.Module):
    """Takes one slice and drops its dimension.

    The last step of (N, T, F) is dim 1, index -1; the last layer of an LSTM's (L, N, F) dim 0.
    """

    def __init__(self, dim: int, index: int) -> None:
        super().__init__()
        self.dim, self.index = dim, index

    def forward(self, input: Tensor) -> Tensor:
        return input.select(self.dim, self.index)


def pick(input: object, *, index: Sequence[int]) -> object:
    """Return the tensor at ``index`` in nested tuples; ValueError if there is none."""
    for place in index:
        if not isinstance(input, (tuple, list)):
            raise ValueError(f"index={list(index)}: the input is one tensor, nothing to pick")
        if not -len(input) <= place < len(input):
            raise ValueError(f"index={list(index)}: the input has {len(input)} parts")
        input = input[place]
    return input


class Pick(nn.Module):
    """Picks one tensor of a layer that returns several.

    An LSTM returns (output, (h_n, c_n)): 0 is the output, [1, 0] the last hidden state.
    """

    def __init__(self, index: int | Iterable[int]) -> None:
        super().__init__()
        self.index = (index,) if isinstance(index, int) else tuple(index)

    def forward(self, input: object) -> object:
        return pick(input, index=self.index)


LAYERS = (
    Entry(Residual, residual, sublayers=("body", "shortcut")),
    Entry(Gate, gate, sublayers=("body",)),
    Entry(Concat, concat_branches, sublayers=("layers",)),
    Entry(Sum, sum_branches, sublayers=("layers",)),
    Entry(Dense, dense, sublayers=("layers",)),
    Entry(StochasticDepth, stochastic_depth),
    Entry(LayerScale, by_position(torch.mul, "input", "weight"), infer={"num_channels": channels}),
    Entry(Permute, by_position(torch.permute, "input", "dims")),
    Entry(Select, by_position(torch.select, "input", "dim", "index")),
    Entry(Pick, pick),
)
