"""Pooling: the maximum, mean or another norm of each window of the image."""

from functools import partial

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, by_position


def max_unpool(function, input, indices, output_size=None, *, kernel_size, stride, padding):
    """Put each value back where ``MaxPool(return_indices=True)`` found it, with zeros elsewhere."""
    return function(input, indices, kernel_size, stride, padding, output_size)


MAX = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
FRACTIONAL = (
    "input",
    "kernel_size",
    "output_size",
    "output_ratio",
    "return_indices",
    "_random_samples",  # the windows' positions, drawn if None
)
POWER = ("input", "norm_type", "kernel_size", "stride", "ceil_mode")
ADAPTIVE = ("input", "output_size")
AVERAGE = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")

LAYERS = (
    Entry(nn.MaxPool1d, by_position(F.max_pool1d, *MAX)),
    Entry(nn.MaxPool2d, by_position(F.max_pool2d, *MAX)),
    Entry(nn.MaxPool3d, by_position(F.max_pool3d, *MAX)),
    Entry(nn.MaxUnpool1d, partial(max_unpool, F.max_unpool1d)),
    Entry(nn.MaxUnpool2d, partial(max_unpool, F.max_unpool2d)),
    Entry(nn.MaxUnpool3d, partial(max_unpool, F.max_unpool3d)),
    Entry(nn.AvgPool1d, by_position(F.avg_pool1d, *AVERAGE)),
    Entry(nn.AvgPool2d, by_position(F.avg_pool2d, *AVERAGE, "divisor_override")),
    Entry(nn.AvgPool3d, by_position(F.avg_pool3d, *AVERAGE, "divisor_override")),
    Entry(nn.FractionalMaxPool2d, by_position(F.fractional_max_pool2d, *FRACTIONAL)),
    Entry(nn.FractionalMaxPool3d, by_position(F.fractional_max_pool3d, *FRACTIONAL)),
    Entry(nn.LPPool1d, by_position(F.lp_pool1d, *POWER)),
    Entry(nn.LPPool2d, by_position(F.lp_pool2d, *POWER)),
    Entry(nn.LPPool3d, by_position(F.lp_pool3d, *POWER)),
    Entry(nn.AdaptiveMaxPool1d, by_position(F.adaptive_max_pool1d, *ADAPTIVE, "return_indices")),
    Entry(nn.AdaptiveMaxPool2d, by_position(F.adaptive_max_pool2d, *ADAPTIVE, "return_indices")),
    Entry(nn.AdaptiveMaxPool3d, by_position(F.adaptive_max_pool3d, *ADAPTIVE, "return_indices")),
    Entry(nn.AdaptiveAvgPool1d, by_position(F.adaptive_avg_pool1d, *ADAPTIVE)),
    Entry(nn.AdaptiveAvgPool2d, by_position(F.adaptive_avg_pool2d, *ADAPTIVE)),
    Entry(nn.AdaptiveAvgPool3d, by_position(F.adaptive_avg_pool3d, *ADAPTIVE)),
)
