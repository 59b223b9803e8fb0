"""Attention (Vaswani et al., 2017): a mean of values, weighted by how well each answers a query.

In evaluation without gradients torch.nn takes a fused path, whose last bits differ; so do the
twins, under the same conditions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, features

Mask = Tensor | None


def additive(mask: Mask, name: str, like: Tensor, other: Mask = None, other_name: str = "") -> Mask:
    """A mask of booleans becomes one of zeros and minus infinities, to be added to scores."""
    kind = F._none_or_dtype(other)
    return F._canonical_mask(mask, name, kind, other_name, like.dtype, bool(other_name))


def may_fuse(input: Tensor, *weights: Tensor) -> bool:
    tensors = (input, *weights)
    return (
        torch.backends.mha.get_fastpath_enabled()
        and not torch.is_autocast_enabled()
        and not torch.overrides.has_torch_function(tensors)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
    )


def merged(attn_mask: Mask, key_padding_mask: Mask, query: Tensor, num_heads: int) -> Any:
    """Both masks as one, and the number that the fused operations call its kind by."""
    if attn_mask is None:
        return key_padding_mask, None if key_padding_mask is None else 1
    batch, length, _ = query.shape
    if attn_mask.dim() == 3:
        merged = attn_mask.view(batch, -1, length, length)
    else:
        merged = attn_mask.view(1, 1, length, length).expand(batch, num_heads, -1, -1)
    if key_padding_mask is not None:
        padding = key_padding_mask.view(batch, 1, 1, length).expand(-1, num_heads, -1, -1)
        merged = merged + padding
    return merged, 2


def multi_head_attention_forward(
    query,
    key,
    value,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    average_attn_weights=True,
    is_causal=False,
    *,
    embed_dim,
    num_heads,
    in_proj_weight,
    in_proj_bias,
    q_proj_weight,
    k_proj_weight,
    v_proj_weight,
    bias_k,
    bias_v,
    add_zero_attn,
    dropout,
    out_proj,
    batch_first,
    training,
):
    """Weigh the values by how well their keys answer the query, in several heads at once.

    Returns:
        The output in the query's form, and the weights, or None where they are not needed.
    """
    floating = any(m is not None and m.is_floating_point() for m in (attn_mask, key_padding_mask))
    key_padding_mask = additive(key_padding_mask, "key_padding_mask", query, attn_mask, "attn_mask")
    attn_mask = additive(attn_mask, "attn_mask", query)
    batched, one_projection = query.dim() == 3, in_proj_weight is not None
    if (
        (query is key is value)
        and batched
        and batch_first
        and one_projection
        and in_proj_bias is not None
        and query.dtype == in_proj_weight.dtype == in_proj_bias.dtype
        and bias_k is bias_v is None
        and num_heads % 2 == 0
        and not (training or add_zero_attn or floating)
        and not (query.is_nested and (key_padding_mask is not None or attn_mask is not None))
        and may_fuse(query, in_proj_weight, in_proj_bias, out_proj.weight, out_proj.bias)
    ):
        mask, kind = merged(attn_mask, key_padding_mask, query, num_heads)
        return torch._native_multi_head_attention(
            query,
            key,
            value,
            embed_dim,
            num_heads,
            in_proj_weight,
            in_proj_bias,
            out_proj.weight,
            out_proj.bias,
            mask,
            need_weights,
            average_attn_weights,
            kind,
        )
    if batch_first and batched:
        query, key, value = _time_first(query, key, value)
    output, weights = F.multi_head_attention_forward(
        query,
        key,
        value,
        embed_dim,
        num_heads,
        in_proj_weight,
        in_proj_bias,
        bias_k,
        bias_v,
        add_zero_attn,
        dropout,
        out_proj.weight,
        out_proj.bias,
        training=training,
        key_padding_mask=key_padding_mask,
        need_weights=need_weights,
        attn_mask=attn_mask,
        use_separate_proj_weight=not one_projection,
        q_proj_weight=q_proj_weight,
        k_proj_weight=k_proj_weight,
        v_proj_weight=v_proj_weight,
        average_attn_weights=average_attn_weights,
        is_causal=is_causal,
    )
    return output.transpose(1, 0) if batch_first and batched else output, weights


def _time_first(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Swap batch and time; what was one tensor stays one, since one projection is then enough."""
    swapped = {id(tensor): tensor.transpose(1, 0) for tensor in (query, key, value)}
    return swapped[id(query)], swapped[id(key)], swapped[id(value)]


LAYERS = (
    Entry(nn.MultiheadAttention, multi_head_attention_forward, infer={"embed_dim": features}),
)
