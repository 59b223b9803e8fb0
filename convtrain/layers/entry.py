"""A row of the catalogue: a layer's class, its functional twin, and its inferred arguments."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.nn import functional as F

Forward = Callable[..., Any]
"""A layer as a callable of one or more tensors."""

Twin = Callable[..., Any]
"""The functional counterpart of a layer: its signature names all that the computation depends on.

Its first parameters are the inputs. The others are filled by name from the layer: a parameter or
buffer, a child layer, or a setting such as ``stride``; ``training`` is the layer's mode,
``parameters`` the list of its own parameters, ``children`` its child layers.

:func:`torch.func.functional_call` marks a layer that torch computes by private functions alone:
its module runs on the model's explicit tensors.
"""


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue."""

    module: type[nn.Module]  # of ``torch.nn``, of convtrain, or the user's own
    twin: Twin
    # Constructor argument to its value, as a function of the input's shape with the batch.
    infer: Mapping[str, Callable[[Size], object]] = field(default_factory=dict)
    sublayers: tuple[str, ...] = ()  # constructor arguments that are lists of layers
    own: Callable[..., object] | None = None  # a user's class or function, not of the catalogue

    @property
    def name(self) -> str:
        """The name of the layer's class or function."""
        return (self.own or self.module).__name__

    @property
    def function_name(self) -> str:
        """The function that computes the layer, such as ``F.conv2d``, or the twin's own name."""
        twin = self.twin
        if isinstance(twin, partial):  # partial(conv, F.conv2d): one twin for several dimensions
            first = twin.args[0]
            twin = first if callable(first) else twin.func
        for place, names in (("F", F), ("torch", torch), ("torch.func", torch.func)):
            for name, value in vars(names).items():
                if value is twin and not name.startswith("_"):
                    return f"{place}.{name}"
            if hasattr(names, twin.__name__):
                return f"{place}.{twin.__name__}"
        return twin.__name__


def by_position(function: Callable[..., Any], *names: str) -> Twin:
    """Return a twin that passes the values of these names by position.

    A function of ``torch.nn.functional`` needs it if it has no Python signature, or if its
    parameters have other names than the layer's settings.
    """

    def twin(*inputs: object, **values: object) -> object:
        return function(*inputs, *(values[name] for name in names[len(inputs) :]))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    twin.__name__ = function.__name__
    twin.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in names]
    )
    return twin


def check_rank(input: Tensor, *ranks: int) -> None:
    if input.dim() not in ranks:
        expected = " or ".join(map(str, ranks))
        raise ValueError(f"expected an input of {expected} dimensions, got {input.dim()}")


def channels(shape: Size) -> int:
    return shape[1]


def batch_first(shape: Size) -> bool:
    """In a declared network the batch is dimension 0, against torch's default."""
    return True


def features(shape: Size) -> int:
    return shape[-1]
