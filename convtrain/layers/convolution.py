"""Convolutions; a filter has shape (out, in / groups, height, width)."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, channels


def conv(
    function, input, weight, bias, *, stride, padding, dilation, groups, padding_mode, kernel_size
):
    """Pad first in the modes that ``F.conv*d`` lacks, because it pads with zeros only."""
    if padding_mode != "zeros":
        input = F.pad(input, _sides(padding, kernel_size, dilation), mode=padding_mode)
        padding = 0
    return function(input, weight, bias, stride, padding, dilation, groups)


def _sides(
    padding: tuple[int, ...] | str, kernel_size: tuple[int, ...], dilation: tuple[int, ...]
) -> list[int]:
    """Return the padding before and after, from the last dimension to the first."""
    sides: list[int] = []
    for position in reversed(range(len(kernel_size))):
        if padding == "same":
            total = dilation[position] * (kernel_size[position] - 1)
            sides += [total // 2, total - total // 2]
        else:
            sides += [0 if padding == "valid" else int(padding[position])] * 2
    return sides


def conv_transpose(
    function,
    input: Tensor,
    output_size: Sequence[int] | None = None,
    *,
    weight,
    bias,
    kernel_size,
    stride,
    padding,
    output_padding,
    groups,
    dilation,
):
    """Compute a transposed convolution.

    A strided convolution maps several input sizes to one output size, so ``output_size`` chooses
    among them. A ValueError names the allowed ones.
    """
    if output_size is not None:
        sizes, given = input.shape[-len(kernel_size) :], list(output_size[-len(kernel_size) :])
        smallest = [
            (size - 1) * step - 2 * pad + spread * (kernel - 1) + 1
            for size, step, pad, spread, kernel in zip(
                sizes, stride, padding, dilation, kernel_size, strict=True
            )
        ]
        output_padding = [size - least for size, least in zip(given, smallest, strict=True)]
        if any(not 0 <= more < step for more, step in zip(output_padding, stride, strict=True)):
            most = [least + step - 1 for least, step in zip(smallest, stride, strict=True)]
            raise ValueError(f"output_size={given}: choose between {smallest} and {most}")
    return function(input, weight, bias, stride, padding, output_padding, groups, dilation)


IN = {"in_channels": channels}

LAYERS = (
    Entry(nn.Conv1d, partial(conv, F.conv1d), infer=IN),
    Entry(nn.Conv2d, partial(conv, F.conv2d), infer=IN),
    Entry(nn.Conv3d, partial(conv, F.conv3d), infer=IN),
    Entry(nn.ConvTranspose1d, partial(conv_transpose, F.conv_transpose1d), infer=IN),
    Entry(nn.ConvTranspose2d, partial(conv_transpose, F.conv_transpose2d), infer=IN),
    Entry(nn.ConvTranspose3d, partial(conv_transpose, F.conv_transpose3d), infer=IN),
)
