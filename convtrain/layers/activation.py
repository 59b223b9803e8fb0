"""Non-linear activations. Most are in ``F`` under the settings of their class."""

import torch
from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry


def sigmoid(input):
    return torch.sigmoid(input)


def tanh(input):
    return torch.tanh(input)


def gelu(input, *, approximate):
    return F.gelu(input, approximate=approximate)


def softplus(input, *, beta, threshold):
    return F.softplus(input, beta, threshold)


def prelu(input, weight):
    return F.prelu(input, weight)


def softmax(input, *, dim):
    return F.softmax(input, dim, _stacklevel=5)


def log_softmax(input, *, dim):
    return F.log_softmax(input, dim, _stacklevel=5)


LAYERS = (
    Entry(nn.ReLU, F.relu),
    Entry(nn.ReLU6, F.relu6),
    Entry(nn.LeakyReLU, F.leaky_relu),
    Entry(nn.PReLU, prelu),
    Entry(nn.ELU, F.elu),
    Entry(nn.SELU, F.selu),
    Entry(nn.GELU, gelu),
    Entry(nn.SiLU, F.silu),
    Entry(nn.Mish, F.mish),
    Entry(nn.Hardswish, F.hardswish),
    Entry(nn.Softplus, softplus),
    Entry(nn.Sigmoid, sigmoid),
    Entry(nn.Tanh, tanh),
    Entry(nn.Softmax, softmax),
    Entry(nn.LogSoftmax, log_softmax),
)
