"""Embeddings: indices select rows of a table of weights."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry


def embedding_bag(
    input,
    offsets=None,
    per_sample_weights=None,
    *,
    weight,
    max_norm,
    norm_type,
    scale_grad_by_freq,
    mode,
    sparse,
    include_last_offset,
    padding_idx,
):
    """Compute the sum, mean or maximum of each bag's rows; a bag starts at each offset."""
    return F.embedding_bag(
        input,
        weight,
        offsets,
        max_norm,
        norm_type,
        scale_grad_by_freq,
        mode,
        sparse,
        per_sample_weights,
        include_last_offset,
        padding_idx,
    )


LAYERS = (
    Entry(nn.Embedding, F.embedding),
    Entry(nn.EmbeddingBag, embedding_bag),
)
