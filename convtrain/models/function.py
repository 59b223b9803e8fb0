"""One layer as a function: its twin, and where each of the twin's arguments comes from."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from convtrain.errors import NetworkError
from convtrain.layers import BY_CLASS

Tensors = Mapping[str, Tensor]


class Function:
    """A layer as a function of its inputs.

    It is called like the layer and has the layer's tensors, children and settings as attributes, so
    that a twin may read ``out_proj.weight`` of a child. The tensors are those that ``holder`` holds
    at the time of the call, unless :meth:`bind` gave others.
    """

    def __init__(
        self,
        model: nn.Module,
        module: nn.Module,
        holder: nn.Module,
        path: str,
        children: dict[str, "Function"],
        first_keys: dict[int, str],
    ) -> None:
        self.model, self.holder, self.path, self.kind = model, holder, path, type(module)
        self._children = children
        self._given: Tensors | None = None
        self._keys: dict[str, tuple[str, ...]] = {}  # a tensor's names in the model
        self._read_tensors(first_keys)
        self._read_signature(module)

    def _read_tensors(self, first_keys: dict[int, str]) -> None:
        self._stores: dict[str, dict[str, Any]] = {}
        for store in (self.holder._parameters, self.holder._buffers):
            for name, tensor in store.items():
                if tensor is not None:
                    self._stores[name] = store
                    self._keys[name] = self._names_of(name, tensor, first_keys)

    def _names_of(self, name: str, tensor: Tensor, first_keys: dict[int, str]) -> tuple[str, ...]:
        key = f"{self.path}.{name}" if self.path else name
        return key, first_keys.setdefault(id(tensor), key)

    def _read_signature(self, module: nn.Module) -> None:
        self._twin = BY_CLASS[self.kind].twin
        self._settings = {n: v for n, v in vars(module).items() if not n.startswith("_")}
        wanted = list(inspect.signature(self._twin).parameters)
        self._asked = [name for name in wanted if name in _ASKED]
        self._tensors = [name for name in wanted if name in self._stores]
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

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        self._entered(inputs, keywords)
        arguments = self._constants.copy()
        for name in self._tensors:
            arguments[name] = self._tensor(name)
        for name in self._asked:
            arguments[name] = _ASKED[name](self)
        if keywords:
            keywords = {self._renamed.get(name, name): value for name, value in keywords.items()}
        return self._observed(self._twin(*inputs, **arguments, **keywords))

    def _entered(self, inputs: Any, keywords: Any) -> None:
        if self.path:
            for entering, _ in self.model.observers:  # type: ignore[union-attr]
                if entering is not None:
                    entering(self.path, (inputs, keywords))

    def _observed(self, output: Any) -> Any:
        if self.path:
            for _, observe in self.model.observers:  # type: ignore[union-attr]
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

    def _tensor(self, name: str) -> Any:
        if self._given is None:
            store = self._stores[name]
            # Parametrizations and FSDP put an attribute in a Parameter's place.
            return store[name] if name in store else getattr(self.holder, name)
        return self._given_tensor(name, self._given)

    def _given_tensor(self, name: str, given: Tensors) -> Tensor:
        for key in self._keys[name]:
            if key in given:
                return given[key]
        raise NetworkError(f"{self._keys[name][0]} is not among the parameters and buffers given")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask before there is anything to ask
            raise AttributeError(name)
        if name in self._stores:
            return self._tensor(name)
        if name in self._children:
            return self._children[name]
        if name in self._settings and name != "training":
            return self._settings[name]
        return getattr(self.holder, name)  # training, or a tensor that is None

    def __iter__(self) -> Iterator["Function"]:
        return iter(self._children.values())

    def __getstate__(self) -> dict[str, Any]:  # not every twin can be pickled; its class finds it
        return {name: value for name, value in vars(self).items() if name != "_twin"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.kind in BY_CLASS:
            self._twin = BY_CLASS[self.kind].twin


_ASKED: dict[str, Callable[[Function], Any]] = {
    "training": lambda layer: layer.holder.training,
    "observed": lambda layer: bool(layer.model.observers),
    "children": lambda layer: layer._children.values(),
    "parameters": lambda layer: [
        layer._tensor(name)
        for name, store in layer._stores.items()
        if store is layer.holder._parameters
    ],
}
"""What a twin may ask of its layer beside its tensors, children and settings."""


class CarriedFunction(Function):
    """A module that the catalogue does not know: run as it is, on the tensors it is given."""

    def _read_tensors(self, first_keys: dict[int, str]) -> None:
        for name, tensor in self._named_tensors():
            self._keys[name] = self._names_of(name, tensor, first_keys)

    def _read_signature(self, module: nn.Module) -> None:
        self._module = module
        self._constants = {}

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        return chain(
            self.holder.named_parameters(remove_duplicate=False),
            self.holder.named_buffers(remove_duplicate=False),
        )

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        self._entered(inputs, keywords)
        if self._given is None:
            values = dict(self._named_tensors())
        else:
            values = {name: self._given_tensor(name, self._given) for name in self._keys}
        self._module.training = self.holder.training
        return self._observed(functional_call(self._module, values, inputs, keywords))
