"""Padding: the image grows at its borders; the four classes differ in what they put there."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry


def zero_pad(input, *, padding):
    return F.pad(input, padding, "constant", 0.0)


def constant_pad(input, *, padding, value):
    return F.pad(input, padding, "constant", value)


def reflection_pad(input, *, padding):
    return F.pad(input, padding, "reflect")


def replication_pad(input, *, padding):
    return F.pad(input, padding, "replicate")


LAYERS = (
    Entry(nn.ZeroPad2d, zero_pad),
    Entry(nn.ConstantPad2d, constant_pad),
    Entry(nn.ReflectionPad2d, reflection_pad),
    Entry(nn.ReplicationPad2d, replication_pad),
)
