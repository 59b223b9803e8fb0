"""Pooling: a window slides over the image and keeps its maximum, its mean, or another norm."""

from functools import partial

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry


def max_pool(function, input, *, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    return function(
        input, kernel_size, stride, padding, dilation, ceil_mode, return_indices=return_indices
    )


def max_unpool(function, input, indices, output_size=None, *, kernel_size, stride, padding):
    """Put each value back where ``MaxPool(return_indices=True)`` found it, zeros elsewhere."""
    return function(input, indices, kernel_size, stride, padding, output_size)


def avg_pool1d(input, *, kernel_size, stride, padding, ceil_mode, count_include_pad):
    return F.avg_pool1d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool(
    function,
    input,
    *,
    kernel_size,
    stride,
    padding,
    ceil_mode,
    count_include_pad,
    divisor_override,
):
    return function(
        input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def fractional_max_pool(
    function, input, *, kernel_size, output_size, output_ratio, return_indices, _random_samples
):
    """Draw where each window lies, unless the layer was given ``_random_samples``."""
    return function(
        input,
        kernel_size,
        output_size,
        output_ratio,
        return_indices,
        _random_samples=_random_samples,
    )


def lp_pool(function, input, *, norm_type, kernel_size, stride, ceil_mode):
    return function(input, float(norm_type), kernel_size, stride, ceil_mode)


def adaptive_max_pool(function, input, *, output_size, return_indices):
    return function(input, output_size, return_indices)


def adaptive_avg_pool(function, input, *, output_size):
    return function(input, output_size)


LAYERS = (
    Entry(nn.MaxPool1d, partial(max_pool, F.max_pool1d)),
    Entry(nn.MaxPool2d, partial(max_pool, F.max_pool2d)),
    Entry(nn.MaxPool3d, partial(max_pool, F.max_pool3d)),
    Entry(nn.MaxUnpool1d, partial(max_unpool, F.max_unpool1d)),
    Entry(nn.MaxUnpool2d, partial(max_unpool, F.max_unpool2d)),
    Entry(nn.MaxUnpool3d, partial(max_unpool, F.max_unpool3d)),
    Entry(nn.AvgPool1d, avg_pool1d),
    Entry(nn.AvgPool2d, partial(avg_pool, F.avg_pool2d)),
    Entry(nn.AvgPool3d, partial(avg_pool, F.avg_pool3d)),
    Entry(nn.FractionalMaxPool2d, partial(fractional_max_pool, F.fractional_max_pool2d)),
    Entry(nn.FractionalMaxPool3d, partial(fractional_max_pool, F.fractional_max_pool3d)),
    Entry(nn.LPPool1d, partial(lp_pool, F.lp_pool1d)),
    Entry(nn.LPPool2d, partial(lp_pool, F.lp_pool2d)),
    Entry(nn.LPPool3d, partial(lp_pool, F.lp_pool3d)),
    Entry(nn.AdaptiveMaxPool1d, partial(adaptive_max_pool, F.adaptive_max_pool1d)),
    Entry(nn.AdaptiveMaxPool2d, partial(adaptive_max_pool, F.adaptive_max_pool2d)),
    Entry(nn.AdaptiveMaxPool3d, partial(adaptive_max_pool, F.adaptive_max_pool3d)),
    Entry(nn.AdaptiveAvgPool1d, partial(adaptive_avg_pool, F.adaptive_avg_pool1d)),
    Entry(nn.AdaptiveAvgPool2d, partial(adaptive_avg_pool, F.adaptive_avg_pool2d)),
    Entry(nn.AdaptiveAvgPool3d, partial(adaptive_avg_pool, F.adaptive_avg_pool3d)),
)
