"""Distances between the rows of two tensors."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, by_position

LAYERS = (
    Entry(nn.CosineSimilarity, by_position(F.cosine_similarity, "x1", "x2", "dim", "eps")),
    Entry(
        nn.PairwiseDistance,
        by_position(F.pairwise_distance, "x1", "x2", "norm", "eps", "keepdim"),
    ),
)
