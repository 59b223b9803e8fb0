"""The names of tensors in the file, from those in a run."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from convtrain.use.code.calls import HELD, Style
from convtrain.use.code.items import Item
from convtrain.use.code.weights import RENAMED

T = TypeVar("T")
COUNTER = "num_batches_tracked"  # a buffer that F.batch_norm does not need


@dataclass(frozen=True)
class FileNames:
    """Maps the keys of a run's ``state_dict`` to those of the file's class."""

    places: Mapping[str, tuple[str, Item]]  # path of a layer to its holder in the file, and item
    style: Style

    def key(self, key: str) -> str:
        """Return the file's name of a tensor, or of a layer."""
        path = self._layer(key)
        holder, item = self.places[path]
        assert item.entry is not None
        own = f"{holder}.{item.attr}" if holder else item.attr
        tensor = key[len(path) + 1 :]
        if item.entry.name == "LayerScale" or not tensor:
            return own
        if self.is_module(path):
            return f"{own}.{tensor}"
        return f"{own}_{RENAMED.get(tensor, tensor)}"

    def is_module(self, path: str) -> bool:
        """Tell whether the file holds a layer, or the layer around it, as a module."""
        item = self.item(path)
        assert item.entry is not None
        return self.style == "nn" or item.entry.name not in HELD or item.is_module

    def item(self, path: str) -> Item:
        return self.places[self._layer(path)][1]

    def _layer(self, key: str) -> str:
        while key not in self.places and key:  # conv2d_1.parametrizations.weight.original0
            key = key.rpartition(".")[0]
        return key

    def attribute(self, key: str) -> str:
        """Return how the main class names a tensor: ``self.stage1[0].conv.weight``."""
        return "self." + re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", self.key(key))

    def in_order(self, tensors: Sequence[T], key: Callable[[T], str]) -> list[T]:
        """Return tensors of a run in the order of the file, whose modules begin with their own."""
        return [tensor for _, tensor in _own_first([(self.key(key(t)), t) for t in tensors])]

    def has(self, key: str) -> bool:
        """Tell whether the file holds a tensor of the run."""
        return not self.key(key).endswith(f"_{COUNTER}")


def _own_first(named: Sequence[tuple[str, T]]) -> list[tuple[str, T]]:
    children: dict[str, list[tuple[str, T]]] = {"": []}
    for name, tensor in named:
        child, dot, inside = name.partition(".")
        children.setdefault(child if dot else "", []).append((inside if dot else name, tensor))
    own = children.pop("")
    return [*own, *(each for inside in children.values() for each in _own_first(inside))]
