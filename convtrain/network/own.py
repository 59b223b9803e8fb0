"""Layers of a user's own inside a declared network: a class, or a function of one tensor.

They are rows like the catalogue's, without a twin: in the functional style the module itself runs,
on the model's explicit tensors, or by :func:`torch.func.functional_call` on those that are given.
"""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import TypeVar

import torch
from torch import Size, Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from convtrain.errors import NetworkError
from convtrain.layers import BY_CLASS
from convtrain.layers.entry import Entry, channels, features
from convtrain.network.arguments import signature_of

Found = TypeVar("Found")

INFERRED: Mapping[str, Callable[[Size], object]] = {
    "in_channels": channels,
    "num_features": channels,
    "in_features": features,
    "input_shape": lambda shape: tuple(shape[1:]),
}
"""Arguments that follow from the input where a class has them, as a function of its shape."""


class FunctionLayer(nn.Module):
    """A function of a tensor as a layer, with the function's other arguments."""

    def __init__(self, function: Callable[..., object], **arguments: object) -> None:
        super().__init__()
        self.function, self.arguments = function, arguments

    def forward(self, input: Tensor) -> object:
        return self.function(input, **self.arguments)

    def extra_repr(self) -> str:
        return ", ".join([self.function.__name__, *(f"{k}={v}" for k, v in self.arguments.items())])


def own_entry(found: Callable[..., object], where: str) -> Entry:
    """Return the row of a class derived from ``nn.Module``, or of a function of one tensor."""
    if not isinstance(found, type):
        return Entry(FunctionLayer, functional_call, {"function": lambda shape: found}, own=found)
    if not issubclass(found, nn.Module):
        raise NetworkError(f"{where}: is no class derived from torch.nn.Module, and no function")
    if found in BY_CLASS:
        return BY_CLASS[found]
    known = signature_of(Entry(found, functional_call, own=found))
    infer = {name: infer for name, infer in INFERRED.items() if name in known}
    return Entry(found, functional_call, infer, own=found)


def own_output(entry: Entry, arguments: Mapping[str, object], input: Tensor) -> object:
    """Return the output of a user's own layer on the meta device.

    The layer runs in evaluation mode, too, so that a mistake there is found before the training.
    """

    def compute(device: str) -> object:
        with torch.device(device):
            module = entry.module(**arguments)
            if any(map(is_lazy, chain(module.parameters(), module.buffers()))):
                raise ValueError(
                    "its sizes follow from its first input; take them as an argument that is "
                    f"inferred: {', '.join(INFERRED)}"
                )
            images = torch.zeros_like(input, device=device)
            output, evaluated = module(images), module.eval()(images)
        if _shapes(output) != _shapes(evaluated):
            raise ValueError(
                f"returns {_shapes(output)} in training and {_shapes(evaluated)} in evaluation"
            )
        return _on_meta(output)

    return on_meta_or_cpu(entry, compute)


def on_meta_or_cpu(entry: Entry, compute: Callable[[str], Found]) -> Found:
    """Call ``compute`` with the meta device, and with the CPU if a user's own layer fails there.

    The random numbers that a user's layer draws are drawn again by the training.
    """
    if entry.own is None:
        return compute("meta")
    with torch.random.fork_rng(devices=[]):
        try:
            return compute("meta")
        except Exception:  # a layer that reads values cannot compute on the meta device
            return compute("cpu")


def _shapes(value: object) -> object:
    """Return the shapes of the tensors that a layer returns, without the batch dimension."""
    if isinstance(value, Tensor):
        return tuple(value.shape[1:])
    if isinstance(value, tuple | list):
        return [_shapes(inner) for inner in value]
    return type(value).__name__


def _on_meta(value: object) -> object:
    if isinstance(value, tuple | list):
        return tuple(map(_on_meta, value))
    return value.to("meta") if isinstance(value, Tensor) else value
