"""The transformer's layers (Vaswani et al., 2017): attention, then two linear layers.

Fused in evaluation without gradients, as attention is.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.transformer import _detect_is_causal_mask, _get_seq_len

from convtrain.layers.attention import additive, may_fuse, merged
from convtrain.layers.entry import Entry, features


def _feed_forward(x, linear1, activation, dropout, linear2):
    return linear2(dropout(activation(linear1(x))))


def transformer_encoder_layer(
    src,
    src_mask=None,
    src_key_padding_mask=None,
    is_causal=False,
    *,
    self_attn,
    linear1,
    linear2,
    norm1,
    norm2,
    dropout,
    dropout1,
    dropout2,
    activation,
    activation_relu_or_gelu,
    norm_first,
    training,
    observed,
):
    """Attention to itself, then two linear layers; both are added to their input."""
    padding = additive(src_key_padding_mask, "src_key_padding_mask", src, src_mask, "src_mask")
    mask = additive(src_mask, "src_mask", src)
    if (
        src.dim() == 3
        and not (training or observed)
        and self_attn.batch_first
        and self_attn.in_proj_weight is not None
        and self_attn.in_proj_bias is not None
        and self_attn.num_heads % 2 == 0
        and activation_relu_or_gelu
        and norm1.eps == norm2.eps
        and not (src.is_nested and (padding is not None or mask is not None))
        and may_fuse(src, *(weights := _fused_weights(self_attn, norm1, norm2, linear1, linear2)))
    ):
        return torch._transformer_encoder_layer_fwd(  # type: ignore[call-arg]  # starred Any
            src,
            self_attn.embed_dim,
            self_attn.num_heads,
            *weights[:4],
            activation_relu_or_gelu == 2,
            norm_first,
            norm1.eps,
            *weights[4:],
            *merged(mask, padding, src, self_attn.num_heads),
        )

    def attend(x):
        attended, _ = self_attn(
            x,
            x,
            x,
            attn_mask=mask,
            key_padding_mask=padding,
            need_weights=False,
            is_causal=is_causal,
        )
        return dropout1(attended)

    def feed_forward(x):
        return dropout2(_feed_forward(x, linear1, activation, dropout, linear2))

    if norm_first:
        src = src + attend(norm1(src))
        return src + feed_forward(norm2(src))
    src = norm1(src + attend(src))
    return norm2(src + feed_forward(src))


def _fused_weights(self_attn, norm1, norm2, linear1, linear2) -> Any:
    return (
        self_attn.in_proj_weight,
        self_attn.in_proj_bias,
        self_attn.out_proj.weight,
        self_attn.out_proj.bias,
        norm1.weight,
        norm1.bias,
        norm2.weight,
        norm2.bias,
        linear1.weight,
        linear1.bias,
        linear2.weight,
        linear2.bias,
    )


def transformer_decoder_layer(
    tgt,
    memory,
    tgt_mask=None,
    memory_mask=None,
    tgt_key_padding_mask=None,
    memory_key_padding_mask=None,
    tgt_is_causal=False,
    memory_is_causal=False,
    *,
    self_attn,
    multihead_attn,
    linear1,
    linear2,
    norm1,
    norm2,
    norm3,
    dropout,
    dropout1,
    dropout2,
    dropout3,
    activation,
    norm_first,
):
    """Like the encoder's layer, with attention to the encoder's output between the two parts."""

    def attend(x):
        attended, _ = self_attn(
            x,
            x,
            x,
            attn_mask=tgt_mask,
            key_padding_mask=tgt_key_padding_mask,
            is_causal=tgt_is_causal,
            need_weights=False,
        )
        return dropout1(attended)

    def attend_to_memory(x):
        attended, _ = multihead_attn(
            x,
            memory,
            memory,
            attn_mask=memory_mask,
            key_padding_mask=memory_key_padding_mask,
            is_causal=memory_is_causal,
            need_weights=False,
        )
        return dropout2(attended)

    def feed_forward(x):
        return dropout3(_feed_forward(x, linear1, activation, dropout, linear2))

    if norm_first:
        tgt = tgt + attend(norm1(tgt))
        tgt = tgt + attend_to_memory(norm2(tgt))
        return tgt + feed_forward(norm3(tgt))
    tgt = norm1(tgt + attend(tgt))
    tgt = norm2(tgt + attend_to_memory(tgt))
    return norm3(tgt + feed_forward(tgt))


def transformer_encoder(
    src,
    mask=None,
    src_key_padding_mask=None,
    is_causal=None,
    *,
    layers,
    norm,
    use_nested_tensor,
    mask_check,
):
    """The layers in turn; where they are fused, padding is not even computed."""
    padding = additive(src_key_padding_mask, "src_key_padding_mask", src, mask, "mask")
    mask = additive(mask, "mask", src)
    first = next(iter(layers))
    output, nested = src, False
    if (
        use_nested_tensor
        and not first.training
        and src.dim() == 3
        and not src.is_nested
        and padding is not None
        and mask is None
        and not (mask_check and torch.compiler.is_compiling())
        and (
            not mask_check
            or torch._nested_tensor_from_mask_left_aligned(src, padding.logical_not())
        )
        and may_fuse(
            src,
            *_fused_weights(
                first.self_attn, first.norm1, first.norm2, first.linear1, first.linear2
            ),
        )
    ):
        nested = True
        output = torch._nested_tensor_from_mask(src, padding.logical_not(), mask_check=False)
        padding = None
    length = _get_seq_len(src, first.self_attn.batch_first)
    is_causal = _detect_is_causal_mask(mask, is_causal, length)
    for layer in layers:
        output = layer(output, src_mask=mask, is_causal=is_causal, src_key_padding_mask=padding)
    if nested:
        output = output.to_padded_tensor(0.0, src.size())
    return output if norm is None else norm(output)


def transformer_decoder(
    tgt,
    memory,
    tgt_mask=None,
    memory_mask=None,
    tgt_key_padding_mask=None,
    memory_key_padding_mask=None,
    tgt_is_causal=None,
    memory_is_causal=False,
    *,
    layers,
    norm,
):
    """The layers in turn, each attending to the same memory."""
    length = _get_seq_len(tgt, next(iter(layers)).self_attn.batch_first)
    tgt_is_causal = _detect_is_causal_mask(tgt_mask, tgt_is_causal, length)
    for layer in layers:
        tgt = layer(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )
    return tgt if norm is None else norm(tgt)


def transformer(
    src,
    tgt,
    src_mask=None,
    tgt_mask=None,
    memory_mask=None,
    src_key_padding_mask=None,
    tgt_key_padding_mask=None,
    memory_key_padding_mask=None,
    src_is_causal=None,
    tgt_is_causal=None,
    memory_is_causal=False,
    *,
    encoder,
    decoder,
    d_model,
    batch_first,
):
    """Encode the source, decode the target with it.

    Raises:
        RuntimeError: source and target differ in batch, or their features are not ``d_model``.
    """
    side = 0 if batch_first else 1
    if src.dim() == 3 and src.shape[side] != tgt.shape[side]:
        raise RuntimeError(f"src has a batch of {src.shape[side]}, tgt of {tgt.shape[side]}")
    if src.shape[-1] != d_model or tgt.shape[-1] != d_model:
        raise RuntimeError(
            f"d_model={d_model}, but src has {src.shape[-1]} features and tgt {tgt.shape[-1]}"
        )
    memory = encoder(
        src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
    )
    return decoder(
        tgt,
        memory,
        tgt_mask=tgt_mask,
        memory_mask=memory_mask,
        tgt_key_padding_mask=tgt_key_padding_mask,
        memory_key_padding_mask=memory_key_padding_mask,
        tgt_is_causal=tgt_is_causal,
        memory_is_causal=memory_is_causal,
    )


IN = {"d_model": features}

LAYERS = (
    Entry(nn.Transformer, transformer, infer=IN),
    Entry(nn.TransformerEncoder, transformer_encoder),
    Entry(nn.TransformerDecoder, transformer_decoder),
    Entry(nn.TransformerEncoderLayer, transformer_encoder_layer, infer=IN),
    Entry(nn.TransformerDecoderLayer, transformer_decoder_layer, infer=IN),
)
