"""A row of the catalogue: a layer's class, its functional twin, and what is inferred."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Size, nn
from torch.nn import functional as F

Forward = Callable[..., Any]
"""A layer as it is called: with a tensor or several, for a tensor or several."""

Twin = Callable[..., Any]
"""The functional counterpart of a layer.

Its first parameters are the call's inputs. The others are filled by name from the layer: a
parameter or buffer, a child layer, or a setting such as ``stride``; ``training`` is the layer's
mode, ``parameters`` the list of all the layer's own, and ``children`` all its child layers. So a
twin's signature says everything that the computation depends on.

:func:`torch.func.functional_call` stands for a layer that torch computes by private functions
alone: its module runs as it is, on the model's explicit tensors.
"""


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue.

    Attributes:
        module: the ``torch.nn`` class, or a composite block of convtrain's.
        twin: the same computation as a function of explicit tensors.
        infer: constructor argument: how it follows from the input's shape, batch included.
        sublayers: constructor arguments that are lists of layers.
    """

    module: type[nn.Module]
    twin: Twin
    infer: Mapping[str, Callable[[Size], int]] = field(default_factory=dict)
    sublayers: tuple[str, ...] = ()

    @property
    def function_name(self) -> str:
        """The function that computes the layer, as ``F.conv2d`` or ``torch.lstm``.

        Where neither has one, it is the twin's own name in the family's file.
        """
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
    """Return a twin that calls a function with the values of these names, by position.

    Most functions of ``torch.nn.functional`` name their parameters as the layer names its settings,
    and are twins as they are. This is for those with other names or without a Python signature.
    """

    def twin(*inputs: object, **values: object) -> object:
        return function(*inputs, *(values[name] for name in names[len(inputs) :]))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    twin.__name__ = function.__name__
    twin.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in names]
    )
    return twin


def channels(shape: Size) -> int:
    """Return the size of dimension 1, as in (N, C, H, W)."""
    return shape[1]


def batch_first(shape: Size) -> bool:
    """In a declared network the batch is dimension 0, whatever the class takes by default."""
    return True


def features(shape: Size) -> int:
    """Return the size of the last dimension, as in (N, F)."""
    return shape[-1]
