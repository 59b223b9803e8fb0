"""Linear layers: ``input @ weight.T + bias``."""

from torch import nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from convtrain.layers.entry import Entry, features


def identity(input):
    return input


def linear(input, weight, bias):
    return F.linear(input, weight, bias)


def bilinear(input1, input2, weight, bias):
    return F.bilinear(input1, input2, weight, bias)


LAYERS = (
    Entry(nn.Identity, identity),
    Entry(nn.Linear, linear, infer={"in_features": features}),
    # Linear by another name: what MultiheadAttention projects its output with.
    Entry(NonDynamicallyQuantizableLinear, linear),
    Entry(nn.Bilinear, bilinear, infer={"in1_features": features}),
)
