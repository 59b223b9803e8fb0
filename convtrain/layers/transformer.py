"""Attention and the transformer's layers (Vaswani et al., 2017), computed by torch's own modules.

``torch.nn.functional`` has no function for them. In evaluation without gradients the modules take a
fused path with other last bits, under conditions private to torch that a twin would have to copy.
So the functional style calls the module itself on the model's explicit tensors, or
:func:`torch.func.functional_call` on tensors that are given by name.
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
