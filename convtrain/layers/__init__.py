"""The catalogue: each ``torch.nn`` class beside its functional twin, one file for each family.

To add a layer, write its row (and, where ``torch.nn.functional`` needs help, its twin) into the
family's ``LAYERS``.
"""

from torch import nn

from convtrain.layers import (
    activation,
    blocks,
    containers,
    convolution,
    dropout,
    linear,
    normalization,
    padding,
    pooling,
)
from convtrain.layers.entry import Entry

FAMILIES: dict[str, tuple[Entry, ...]] = {
    "containers": containers.LAYERS,
    "blocks": blocks.LAYERS,
    "convolution": convolution.LAYERS,
    "pooling": pooling.LAYERS,
    "padding": padding.LAYERS,
    "activation": activation.LAYERS,
    "normalization": normalization.LAYERS,
    "linear": linear.LAYERS,
    "dropout": dropout.LAYERS,
}

BY_NAME: dict[str, Entry] = {
    entry.module.__name__: entry for family in FAMILIES.values() for entry in family
}
BY_CLASS: dict[type[nn.Module], Entry] = {entry.module: entry for entry in BY_NAME.values()}
