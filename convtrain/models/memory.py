"""How a model lies in memory: whether it fits, channels last, and activations in place."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

from torch import OutOfMemoryError, Tensor, channels_last, nn

from convtrain.errors import NetworkError

FRESH = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Linear)
"""Layers whose output is theirs alone, and which need none of it for their own gradient."""

LARGE = 64
"""Weights of ordinary convolutions, for each pixel of a batch, from which channels last costs more
on the CPU than it brings: with every step all weights are brought into the kernel's own order."""


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Raise NetworkError, which says what was built, where the memory is too small for it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = isinstance(error, MemoryError | OutOfMemoryError)
        if not told and "can't allocate memory" not in str(error):
            raise
        raise NetworkError(
            f"{what}: does not fit into this machine's memory; "
            f"python -m convtrain check --build tells what it takes"
        ) from error


def activate_in_place(module: nn.Module) -> None:
    """Let each ReLU that follows a layer of :data:`FRESH` overwrite its output: same bits."""
    for chain in module.modules():
        if isinstance(chain, nn.Sequential):
            for before, after in pairwise(chain):
                if type(before) in FRESH and type(after) is nn.ReLU:
                    after.inplace = True


def channels_last_pays(model: nn.Module, device: Literal["cpu", "gpu", "mps"], pixels: int) -> bool:
    """Tell whether convolutions are likely to be faster when an image's channels lie side by side.

    Args:
        pixels: in a batch, as images x height x width.
    """
    weights = _convolution_weights(model)
    if not weights or device == "mps":
        return False
    dense = (w for w in weights if w.shape[1] > 1 and max(w.shape[2:]) > 1)
    return device == "gpu" or sum(w.numel() for w in dense) < LARGE * pixels


def lay_channels_last(model: nn.Module) -> None:
    """Bring the weights of all 2d convolutions into the order (out, height, width, in)."""
    for weight in _convolution_weights(model):
        # Not contiguous(), which leaves the strides of a single channel as they are: a convolution
        # decides by them, and the layers after it would have their input in the other order.
        weight.data = weight.data.to(memory_format=channels_last)


def _convolution_weights(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.ndim == 4]
