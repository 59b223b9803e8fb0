"""Pooling: a window slides over the image and keeps its maximum or its mean."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry


def max_pool1d(input, *, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    return F.max_pool1d(
        input, kernel_size, stride, padding, dilation, ceil_mode, return_indices=return_indices
    )


def max_pool2d(input, *, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    return F.max_pool2d(
        input, kernel_size, stride, padding, dilation, ceil_mode, return_indices=return_indices
    )


def avg_pool1d(input, *, kernel_size, stride, padding, ceil_mode, count_include_pad):
    return F.avg_pool1d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input, *, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
):
    return F.avg_pool2d(
        input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def adaptive_avg_pool1d(input, *, output_size):
    return F.adaptive_avg_pool1d(input, output_size)


def adaptive_avg_pool2d(input, *, output_size):
    return F.adaptive_avg_pool2d(input, output_size)


def adaptive_max_pool2d(input, *, output_size, return_indices):
    return F.adaptive_max_pool2d(input, output_size, return_indices)


LAYERS = (
    Entry(nn.MaxPool1d, max_pool1d),
    Entry(nn.MaxPool2d, max_pool2d),
    Entry(nn.AvgPool1d, avg_pool1d),
    Entry(nn.AvgPool2d, avg_pool2d),
    Entry(nn.AdaptiveAvgPool1d, adaptive_avg_pool1d),
    Entry(nn.AdaptiveAvgPool2d, adaptive_avg_pool2d),
    Entry(nn.AdaptiveMaxPool2d, adaptive_max_pool2d),
)
