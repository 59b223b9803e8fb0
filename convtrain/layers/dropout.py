"""Dropout: in training, zero some values at random and scale up the others."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry


def alpha_dropout(input, *, p, training):
    """Keep mean and variance of what SELU puts out. ``inplace`` has no effect, in torch neither."""
    return F.alpha_dropout(input, p, training)


def feature_alpha_dropout(input, *, p, training):
    """:func:`alpha_dropout` of whole channels."""
    return F.feature_alpha_dropout(input, p, training)


LAYERS = (
    Entry(nn.Dropout, F.dropout),
    Entry(nn.Dropout1d, F.dropout1d),
    Entry(nn.Dropout2d, F.dropout2d),
    Entry(nn.Dropout3d, F.dropout3d),
    Entry(nn.AlphaDropout, alpha_dropout),
    Entry(nn.FeatureAlphaDropout, feature_alpha_dropout),
)
