"""Dropout: in training, zero some values at random and scale up the others."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry

LAYERS = (
    Entry(nn.Dropout, F.dropout),
    Entry(nn.Dropout2d, F.dropout2d),
)
