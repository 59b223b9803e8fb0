"""One layer as a function: its twin, and the sources of the twin's arguments."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from convtrain.errors import NetworkError
from convtrain.layers import BY_CLASS

Observer = Callable[[str, Any], None]
"""Takes a layer's name, and its output or its inputs."""

Observers = list[tuple[Observer | None, Observer]]
"""The observers to call before and after each layer."""

Tensors = Mapping[str, Tensor]
"""Parameters and buffers by their names in the model."""


class Function:
    """A layer as a function of its inputs.

    A twin may read a child's tensors, children and settings as attributes (``linear.weight``). The
    tensors come from ``holder`` at the time of the call, unless :meth:`bind` has set others.
    """

    def __init__(
        self,
        observers: Observers,
        module: nn.Module,
        holder: nn.Module,
        path: str,
        children: dict[str, "Function"],
        first_keys: dict[int, str],
    ) -> None:
        self.observers, self.holder, self.path, self.kind = observers, holder, path, type(module)
        self._children = children
        self._given: Tensors | None = None
        prefix = f"{path}." if path else ""
        # A tied tensor has two names in the model, and callers may give the first one alone.
        self._keys = {
            name: (prefix + name, first_keys.setdefault(id(tensor), prefix + name))
            for name, tensor in self._named_tensors()
        }
        self._read_signature(module)

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        return chain(
            self.holder.named_parameters(recurse=False, remove_duplicate=False),
            self.holder.named_buffers(recurse=False, remove_duplicate=False),
        )

    def _read_signature(self, module: nn.Module) -> None:
        self._twin = BY_CLASS[self.kind].twin
        self._settings = {n: v for n, v in vars(module).items() if not n.startswith("_")}
        wanted = list(inspect.signature(self._twin).parameters)
        self._asked = [name for name in wanted if name in _ASKED]
        self._tensors = [name for name in wanted if name in self._keys]
        # A twin that asks for all its children knows none of their names, which users choose.
        named = {} if "children" in self._asked else self._children
        unnamed = self._children.keys() - named.keys()
        inputs = [
            n for n in wanted if n not in self._asked and (n in unnamed or not hasattr(module, n))
        ]
        self._constants = {
            name: named.get(name) or getattr(module, name)
            for name in wanted
            if name not in self._asked and name not in self._tensors and name not in inputs
        }
        called = inspect.signature(module.forward).parameters
        self._renamed = {old: new for old, new in zip(called, inputs, strict=False) if old != new}

    def __call__(self, *inputs: object, **keywords: object) -> object:
        observers = tuple(self.observers) if self.path else ()
        for entering, _ in observers:
            if entering is not None:
                entering(self.path, (inputs, keywords))
        arguments = self._constants.copy()
        for name in self._tensors:
            arguments[name] = self._tensor(name)
        for name in self._asked:
            arguments[name] = _ASKED[name](self)
        if keywords:
            keywords = {self._renamed.get(name, name): value for name, value in keywords.items()}
        output = self._twin(*inputs, **arguments, **keywords)
        for _, observe in observers:
            observe(self.path, output)
        return output

    def walk(self) -> Iterator["Function"]:
        """Yield this function and all below it, each before its children."""
        yield self
        for child in self._children.values():
            yield from child.walk()

    def bind(self, values: Tensors) -> "Function":
        """Return the same function of other tensors, given by their names in the model."""
        bound = object.__new__(type(self))
        bound.__dict__.update(vars(self))
        bound._given = values
        bound._children = {name: child.bind(values) for name, child in self._children.items()}
        bound._constants = {n: bound._children.get(n) or v for n, v in self._constants.items()}
        return bound

    def _tensor(self, name: str) -> Tensor:
        if self._given is None:
            # Faster than getattr, which searches the instance's attributes first. Parametrizations
            # and FSDP replace a Parameter by an attribute.
            for store in (self.holder._parameters, self.holder._buffers):
                if (tensor := store.get(name)) is not None:
                    return tensor
            return getattr(self.holder, name)
        for key in self._keys[name]:
            if key in self._given:
                return self._given[key]
        raise NetworkError(f"{self._keys[name][0]} is not among the parameters and buffers given")

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # copy and pickle look up methods before __init__
            raise AttributeError(name)
        if name in self._keys:
            return self._tensor(name)
        if name in self._children:
            return self._children[name]
        if name in self._settings and name != "training":
            return self._settings[name]
        return getattr(self.holder, name)  # training, or a tensor that is None

    def __iter__(self) -> Iterator["Function"]:
        return iter(self._children.values())

    def __getstate__(self) -> dict[str, object]:  # some twins cannot be pickled
        return {name: value for name, value in vars(self).items() if name != "_twin"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if self.kind in BY_CLASS:
            self._twin = BY_CLASS[self.kind].twin


_ASKED: dict[str, Callable[[Function], object]] = {
    "training": lambda layer: layer.holder.training,
    "children": lambda layer: layer._children.values(),
    "parameters": lambda layer: [
        layer._tensor(name) for name in layer._keys if name in layer.holder._parameters
    ],
}
"""Reserved names of a twin's parameters, besides tensors, children and settings."""


class CarriedFunction(Function):
    """A module without a twin, which runs as it is, on the model's tensors or on those given.

    It is its own ``holder``; at the root it shares the holder's dictionaries.
    """

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        return chain(
            self.holder.named_parameters(remove_duplicate=False),
            self.holder.named_buffers(remove_duplicate=False),
        )

    def _read_signature(self, module: nn.Module) -> None:
        self.module = module
        self._constants = {}

    def __call__(self, *inputs: object, **keywords: object) -> object:
        self.module.training = self.holder.training
        if self._given is None:
            return self.module(*inputs, **keywords)
        values = {name: self._tensor(name) for name in self._keys}
        return functional_call(self.module, values, inputs, keywords)
