"""Torch's containers, and the layers that change only a tensor's shape."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from convtrain.layers.entry import Entry, Forward, by_position


def sequential(input: Tensor, *, children: Iterable[Forward]) -> Tensor:
    for layer in children:
        input = layer(input)
    return input


def no_forward(*inputs, **keywords):
    raise NotImplementedError("a list or dictionary of layers or parameters has no forward")


LAYERS = (
    Entry(nn.Sequential, sequential, sublayers=("layers",)),
    Entry(nn.ModuleList, no_forward),
    Entry(nn.ModuleDict, no_forward),
    Entry(nn.ParameterList, no_forward),
    Entry(nn.ParameterDict, no_forward),
    Entry(nn.Flatten, by_position(torch.flatten, "input", "start_dim", "end_dim")),
    Entry(nn.Unflatten, by_position(torch.unflatten, "input", "dim", "unflattened_size")),
)
