"""Dropout: in training, zero some values at random and scale up the others."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, by_position

LAYERS = (
    Entry(nn.Dropout, F.dropout),
    Entry(nn.Dropout1d, F.dropout1d),
    Entry(nn.Dropout2d, F.dropout2d),
    Entry(nn.Dropout3d, F.dropout3d),
    # torch ignores ``inplace`` in these two.
    Entry(nn.AlphaDropout, by_position(F.alpha_dropout, "input", "p", "training")),
    Entry(nn.FeatureAlphaDropout, by_position(F.feature_alpha_dropout, "input", "p", "training")),
)
