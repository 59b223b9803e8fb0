"""Write one layer: what a class holds of it, and its call, in either style."""

from typing import NamedTuple

from convtrain.layers.entry import Entry
from convtrain.use.code.arguments import Arguments
from convtrain.use.code.calls import (
    ACTIVATIONS,
    HELD,
    NORMS,
    Style,
    call_without_weights,
    constructor,
    is_held,
    is_module_always,
)
from convtrain.use.code.weights import INPUT, scale, with_weights

METHODS = ("Permute", "Select", "Unflatten", "LayerScale")  # x.permute(...), x * scale


class WrittenLayer(NamedTuple):
    """A layer in a class.

    Attributes:
        family: decides which calls share one expression.
        init: statements of ``__init__``.
        call: the call, in which INPUT stands for the input.
    """

    family: str
    init: list[str]
    call: str


def write_layer(arguments: Arguments, style: Style) -> WrittenLayer:
    """Write a layer that is no composite."""
    item = arguments.item
    entry = item.entry
    assert entry is not None
    family = _family(entry)
    if entry.own is None and entry.name == "LayerScale":
        return WrittenLayer(family, *scale(arguments))
    if not is_held(entry, style):
        return WrittenLayer(family, [], call_without_weights(arguments, INPUT))
    as_module = is_module_always(entry)
    if style == "functional" and not as_module:
        return WrittenLayer(family, *with_weights(arguments))
    item.is_module = True
    init = [f"self.{item.attr} = {constructor(arguments)}"]
    if style == "functional" and entry.own is None:
        init.insert(0, f"# torch.nn.functional has no {entry.name}: the module holds its weights.")
    return WrittenLayer("module" if as_module else family, init, f"self.{item.attr}({INPUT})")


def _family(entry: Entry) -> str:
    if entry.own is not None:
        return "weights" if isinstance(entry.own, type) else "other"
    if entry.name in NORMS:
        return "norm"
    if entry.name in ACTIVATIONS:
        return "activation"
    if entry.name in METHODS:
        return "method"
    if entry.name == "Pick":
        return "index"
    return "weights" if entry.name in HELD else "other"
