"""Padding; the classes differ in the values that they add around the image."""

from functools import partial

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry


def pad(mode, input, *, padding, value=None):
    return F.pad(input, padding, mode, value)


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
    Entry(nn.ZeroPad1d, partial(pad, "constant")),
    Entry(nn.ZeroPad2d, partial(pad, "constant")),
    Entry(nn.ZeroPad3d, partial(pad, "constant")),
    Entry(nn.ConstantPad1d, partial(pad, "constant")),
    Entry(nn.ConstantPad2d, partial(pad, "constant")),
    Entry(nn.ConstantPad3d, partial(pad, "constant")),
)
