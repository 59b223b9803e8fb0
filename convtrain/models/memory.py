"""A model in memory: whether it fits, channels last, and activations in place."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

from torch import OutOfMemoryError, Tensor, channels_last, nn

from convtrain.errors import NetworkError

OVERWRITABLE = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.Linear,
)
"""Layers whose output no other layer holds, and whose own gradient does not need it."""

MAX_WEIGHTS_PER_PIXEL = 64
"""Weights of ordinary convolutions for each pixel of a batch, above which channels last is slower
on the CPU: every step converts all weights to the order of the kernel."""


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Turn an error about too little memory into a NetworkError that names what was built."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, MemoryError | OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        raise NetworkError(
            f"{what}: does not fit into this machine's memory; "
            f"python -m convtrain check --build shows how much it needs"
        ) from error


def activate_in_place(module: nn.Module) -> None:
    """Let each ReLU overwrite the output of an :data:`OVERWRITABLE` layer before it: same bits."""
    for sequence in module.modules():
        if isinstance(sequence, nn.Sequential):
            for before, after in pairwise(sequence):
                if type(before) in OVERWRITABLE and type(after) is nn.ReLU:
                    after.inplace = True


def channels_last_pays(model: nn.Module, device: Literal["cpu", "gpu", "mps"], pixels: int) -> bool:
    """Tell whether convolutions are likely to be faster with an image's channels side by side.

    Args:
        pixels: in a batch, as images x height x width.
    """
    weights = _convolution_weights(model)
    if not weights or device == "mps":
        return False
    dense = (w for w in weights if w.shape[1] > 1 and max(w.shape[2:]) > 1)
    return device == "gpu" or sum(w.numel() for w in dense) < MAX_WEIGHTS_PER_PIXEL * pixels


def lay_channels_last(model: nn.Module) -> None:
    """Bring the weights of all 2d convolutions into the order (out, height, width, in)."""
    for weight in _convolution_weights(model):
        # contiguous() would leave the strides of a single channel as they are. A convolution
        # decides by them, and would pass its output on in the other order.
        weight.data = weight.data.to(memory_format=channels_last)


def _convolution_weights(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.ndim == 4]
