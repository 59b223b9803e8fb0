"""Attention and the transformer's layers (Vaswani et al., 2017), computed by torch's own modules.

``torch.nn.functional`` has no function for these layers. In evaluation without gradients their
modules take a fused path, whose last bits differ and whose conditions are private to torch, so a
twin would have to copy them. Instead the functional style calls the module itself on the model's
explicit tensors; with tensors given by name it calls :func:`torch.func.functional_call`.
"""

from torch import nn
from torch.func import functional_call

from convtrain.layers.entry import Entry, features

IN = {"d_model": features}

LAYERS = (
    Entry(nn.MultiheadAttention, functional_call, infer={"embed_dim": features}),
    Entry(nn.Transformer, functional_call, infer=IN),
    Entry(nn.TransformerEncoder, functional_call),
    Entry(nn.TransformerDecoder, functional_call),
    Entry(nn.TransformerEncoderLayer, functional_call, infer=IN),
    Entry(nn.TransformerDecoderLayer, functional_call, infer=IN),
)
