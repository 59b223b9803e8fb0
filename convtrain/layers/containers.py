"""Torch's containers, and the layers that change only a tensor's shape."""

from collections.abc import Iterable

from torch import Tensor, nn

from convtrain.layers.entry import Entry, Forward


def sequential(input: Tensor, *, children: Iterable[Forward]) -> Tensor:
    for layer in children:
        input = layer(input)
    return input


def no_forward(*inputs, **keywords):
    """Raise: these classes only hold what others use."""
    raise NotImplementedError("a list or dictionary of layers or parameters has no forward")


def flatten(input, *, start_dim, end_dim):
    return input.flatten(start_dim, end_dim)


def unflatten(input, *, dim, unflattened_size):
    return input.unflatten(dim, unflattened_size)


LAYERS = (
    Entry(nn.Sequential, sequential, sublayers=("layers",)),
    Entry(nn.ModuleList, no_forward),
    Entry(nn.ModuleDict, no_forward),
    Entry(nn.ParameterList, no_forward),
    Entry(nn.ParameterDict, no_forward),
    Entry(nn.Flatten, flatten),
    Entry(nn.Unflatten, unflatten),
)
