"""Padding: the image grows at its borders; the classes differ in what they put there."""

from functools import partial

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry


def pad(mode, input, *, padding):
    return F.pad(input, padding, mode)


def constant_pad(input, *, padding, value):
    return F.pad(input, padding, "constant", value)


LAYERS = (
    Entry(nn.ReflectionPad1d, partial(pad, "reflect")),
    Entry(nn.ReflectionPad2d, partial(pad, "reflect")),
    Entry(nn.ReflectionPad3d, partial(pad, "reflect")),
    Entry(nn.ReplicationPad1d, partial(pad, "replicate")),
    Entry(nn.ReplicationPad2d, partial(pad, "replicate")),
    Entry(nn.ReplicationPad3d, partial(pad, "replicate")),
    Entry(nn.CircularPad1d, partial(pad, "circular")),
    Entry(nn.CircularPad2d, partial(pad, "circular")),
    Entry(nn.CircularPad3d, partial(pad, "circular")),
    Entry(nn.ZeroPad1d, constant_pad),
    Entry(nn.ZeroPad2d, constant_pad),
    Entry(nn.ZeroPad3d, constant_pad),
    Entry(nn.ConstantPad1d, constant_pad),
    Entry(nn.ConstantPad2d, constant_pad),
    Entry(nn.ConstantPad3d, constant_pad),
)
