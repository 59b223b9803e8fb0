"""Convolutions: the filter is a tensor of shape (out, in / groups, height, width)."""

from torch import Tensor, nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, channels


def _pad(
    input: Tensor,
    weight: Tensor,
    padding: tuple[int, ...] | str,
    dilation: tuple[int, ...],
    mode: str,
) -> tuple[Tensor, tuple[int, ...] | str]:
    """Pad where ``F.conv*d`` cannot, which knows zeros only; return the input and what is left."""
    if mode == "zeros":
        return input, padding
    sides: list[int] = []
    for position in reversed(range(len(dilation))):
        if padding == "same":
            total = dilation[position] * (weight.shape[2 + position] - 1)
            sides += [total // 2, total - total // 2]
        elif padding == "valid":
            sides += [0, 0]
        else:
            sides += [int(padding[position])] * 2
    return F.pad(input, sides, mode=mode), (0,) * len(dilation)


def conv1d(input, weight, bias, *, stride, padding, dilation, groups, padding_mode):
    input, padding = _pad(input, weight, padding, dilation, padding_mode)
    return F.conv1d(input, weight, bias, stride, padding, dilation, groups)


def conv2d(input, weight, bias, *, stride, padding, dilation, groups, padding_mode):
    input, padding = _pad(input, weight, padding, dilation, padding_mode)
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def conv3d(input, weight, bias, *, stride, padding, dilation, groups, padding_mode):
    input, padding = _pad(input, weight, padding, dilation, padding_mode)
    return F.conv3d(input, weight, bias, stride, padding, dilation, groups)


IN = {"in_channels": channels}

LAYERS = (
    Entry(nn.Conv1d, conv1d, infer=IN),
    Entry(nn.Conv2d, conv2d, infer=IN),
    Entry(nn.Conv3d, conv3d, infer=IN),
)
