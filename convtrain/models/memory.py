"""A model in memory: whether it fits, channels-last weights, and in-place activations."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

from torch import OutOfMemoryError, Tensor, channels_last, nn

from convtrain.errors import NetworkError
from convtrain.layers import BY_CLASS
from convtrain.program import as_typed

OVERWRITABLE = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.Linear,
)
"""Layers that return a new tensor, and do not need it in their backward pass."""

MAX_WEIGHTS_PER_PIXEL = 64
"""Weights of ordinary convolutions (neither depthwise nor 1x1) per pixel of a batch, above which
channels last is slower on the CPU: each step converts all weights to the kernel's order."""


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Turn an out-of-memory error into a NetworkError that names ``what`` was built."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, MemoryError | OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        raise NetworkError(
            f"{what}: does not fit into this machine's memory; "
            f"{as_typed('python -m convtrain check --build')} shows how much it needs"
        ) from error


def activate_in_place(module: nn.Module) -> None:
    """Let each ReLU overwrite the output of an :data:`OVERWRITABLE` layer, with the same bits."""
    for sequence in _declared(module):
        if isinstance(sequence, nn.Sequential):
            for before, after in pairwise(sequence):
                if type(before) in OVERWRITABLE and type(after) is nn.ReLU:
                    after.inplace = True


def _declared(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a network's modules, but none inside a user's own layer, which may read its outputs."""
    yield module
    for child in module.children():
        if type(child) in BY_CLASS:
            yield from _declared(child)


def channels_last_pays(model: nn.Module, device: Literal["cpu", "gpu", "mps"], pixels: int) -> bool:
    """Tell whether channels last is likely faster; ``pixels`` is batch size x height x width."""
    weights = _convolution_weights(model)
    if not weights or device == "mps":
        return False
    dense = (w for w in weights if w.shape[1] > 1 and max(w.shape[2:]) > 1)
    return device == "gpu" or sum(w.numel() for w in dense) < MAX_WEIGHTS_PER_PIXEL * pixels


def lay_channels_last(model: nn.Module) -> None:
    """Convert the weights of all 2d convolutions to channels last (out, height, width, in)."""
    for weight in _convolution_weights(model):
        # contiguous() leaves the strides of a single channel unchanged. A convolution chooses its
        # output's format by them, and would return channels first.
        weight.data = weight.data.to(memory_format=channels_last)


def _convolution_weights(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.ndim == 4]
