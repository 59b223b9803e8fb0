"""The catalogue of layers: each ``torch.nn`` class with its functional twin, one file per family.

To add a layer, append its row to the family's ``LAYERS``, and write a twin where no function of
``torch.nn.functional`` fits.
"""

from torch import nn

from convtrain.layers import (
    activation,
    blocks,
    containers,
    convolution,
    distance,
    dropout,
    linear,
    loss,
    normalization,
    padding,
    pooling,
    recurrent,
    sparse,
    transformer,
    vision,
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
    "recurrent": recurrent.LAYERS,
    "transformer": transformer.LAYERS,
    "linear": linear.LAYERS,
    "dropout": dropout.LAYERS,
    "sparse": sparse.LAYERS,
    "distance": distance.LAYERS,
    "loss": loss.LAYERS,
    "vision": vision.LAYERS,
}

BY_NAME: dict[str, Entry] = {
    entry.module.__name__: entry for family in FAMILIES.values() for entry in family
}
BY_CLASS: dict[type[nn.Module], Entry] = {entry.module: entry for entry in BY_NAME.values()}
