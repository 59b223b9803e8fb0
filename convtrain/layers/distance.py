"""Distances between the rows of two tensors."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry


def cosine_similarity(x1, x2, *, dim, eps):
    return F.cosine_similarity(x1, x2, dim, eps)


def pairwise_distance(x1, x2, *, norm, eps, keepdim):
    return F.pairwise_distance(x1, x2, norm, eps, keepdim)


LAYERS = (
    Entry(nn.CosineSimilarity, cosine_similarity),
    Entry(nn.PairwiseDistance, pairwise_distance),
)
