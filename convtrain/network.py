"""From a declared network to resolved layers: names, inferred arguments, shapes.

A network is declared as a list. An entry is the name of a layer (``ReLU``), or the name with its
arguments (``Conv2d: {out_channels: 16, kernel_size: 3}``), beside which ``name:`` may give a name
of your own. Nothing here holds a weight: shapes are found on torch's meta device, which computes
shapes and no values.
"""

import inspect
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, nn

from convtrain.errors import NetworkError, did_you_mean
from convtrain.layers import BY_NAME
from convtrain.layers.entry import Entry

PROBE_BATCH = 2  # batch norm refuses a single image in training


@dataclass(frozen=True)
class Layer:
    """One resolved layer.

    Attributes:
        name: unique within its chain; ``path`` is the name from the network's root, with dots.
        entry: its row of the catalogue.
        arguments: those declared and those inferred, as the class takes them.
        chains: the layers inside a composite one, by constructor argument.
        input_shape, output_shape: of one example, without the batch dimension.
    """

    name: str
    path: str
    entry: Entry
    arguments: Mapping[str, Any]
    chains: Mapping[str, tuple["Layer", ...]]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def make(self) -> nn.Module:
        """Make the ``torch.nn`` module, with freshly drawn weights."""
        return _make(self.entry, self.arguments, self.chains)


@dataclass(frozen=True)
class Network:
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.layers[-1].output_shape


def resolve_network(layers: Sequence[Any], input_shape: Sequence[int]) -> Network:
    """Resolve a declared network for inputs of ``input_shape`` (without the batch dimension).

    Raises:
        NetworkError: names the layer, what came in and what is wrong with it.
    """
    if not layers:
        raise NetworkError("network.layers is empty; declare at least one layer, such as Flatten")
    shape = Size((PROBE_BATCH, *input_shape))
    resolved, _ = _resolve_chain(layers, shape, "network.layers", "")
    return Network(resolved, tuple(input_shape))


def make_chain(layers: Sequence[Layer]) -> nn.Sequential:
    """Make the modules of a chain, in order, under the layers' names."""
    return nn.Sequential(OrderedDict((layer.name, layer.make()) for layer in layers))


def _make(
    entry: Entry, arguments: Mapping[str, Any], chains: Mapping[str, Sequence[Layer]]
) -> nn.Module:
    children = {argument: make_chain(layers) for argument, layers in chains.items()}
    if entry.module is nn.Sequential:
        return children["layers"]
    return entry.module(**arguments, **children)


def _resolve_chain(
    declared: Any, shape: Size, where: str, prefix: str
) -> tuple[tuple[Layer, ...], Size]:
    if not isinstance(declared, Sequence) or isinstance(declared, str):
        raise NetworkError(f"{where}={declared!r}: expected a list of layers")
    taken: Counter[str] = Counter()
    layers: list[Layer] = []
    for index, item in enumerate(declared):
        kind, arguments, name = _read(item, f"{where}[{index}]")
        taken[kind] += 1
        name = name or f"{_snake(kind)}_{taken[kind]}"
        if any(layer.name == name for layer in layers):
            raise NetworkError(f"{where}[{index}]: the name {name!r} is taken; give another name")
        layer, shape = _resolve_layer(kind, arguments, name, shape, f"{where}[{index}]", prefix)
        layers.append(layer)
    return tuple(layers), shape


def _read(item: Any, where: str) -> tuple[str, Any, str | None]:
    """Return class name, arguments and name of a declared layer."""
    if isinstance(item, str):
        return item, {}, None
    if isinstance(item, Mapping):
        keys = [key for key in item if key != "name"]
        if len(keys) == 1:
            name = item.get("name")
            if name is not None and not re.fullmatch(r"[A-Za-z_]\w*", str(name)):
                raise NetworkError(f"{where}: name={name!r} must be letters, digits and '_'")
            return str(keys[0]), item[keys[0]] if item[keys[0]] is not None else {}, name
        raise NetworkError(
            f"{where}: one layer an entry, found {', '.join(map(str, keys)) or 'none'}; "
            f"write '- Conv2d: {{out_channels: 16, kernel_size: 3}}'"
        )
    raise NetworkError(
        f"{where}={item!r}: expected a layer such as 'ReLU' or 'Dropout: {{p: 0.5}}'"
    )


def _resolve_layer(
    kind: str, declared: Any, name: str, shape: Size, where: str, prefix: str
) -> tuple[Layer, Size]:
    if kind not in BY_NAME:
        raise NetworkError(f"{where}: no layer is called {kind}{did_you_mean(kind, BY_NAME)}")
    entry, path, where = BY_NAME[kind], prefix + name, f"{where} {prefix}{name} ({kind})"
    if entry.chains and isinstance(declared, Sequence) and not isinstance(declared, str):
        declared = {entry.chains[0]: declared}
    if not isinstance(declared, Mapping):
        raise NetworkError(f"{where}: arguments must be given by name, as '{kind}: {{key: value}}'")
    _check_names(entry, declared, where)
    chains = {
        argument: _resolve_chain(
            declared[argument],
            shape,
            f"{where.split(' ')[0]}.{argument}",
            f"{path}." if entry.module is nn.Sequential else f"{path}.{argument}.",
        )[0]
        for argument in entry.chains
        if argument in declared
    }
    arguments = {key: value for key, value in declared.items() if key not in entry.chains}
    try:
        for argument, infer in entry.infer.items():
            if argument not in arguments:
                arguments[argument] = infer(shape)
        with torch.device("meta"):
            output = _make(entry, arguments, chains)(torch.empty(shape))
    except Exception as error:
        raise NetworkError(f"{where}: input {_shown(shape)}: {_reason(error)}") from error
    inside = tuple(shape[1:])
    return Layer(
        name, path, entry, arguments, chains, inside, tuple(output.shape[1:])
    ), output.shape


def _check_names(entry: Entry, declared: Mapping[str, Any], where: str) -> None:
    signature = inspect.signature(entry.module.__init__)
    known = [n for n in signature.parameters if n not in ("self", "args", "device", "dtype")]
    known = list(entry.chains) if entry.module is nn.Sequential else known
    for argument in declared:
        if argument not in known:
            near = did_you_mean(str(argument), known)
            raise NetworkError(
                f"{where}: no argument is called {argument}{near or '; known: ' + ', '.join(known)}"
            )
    required = [
        n
        for n in known
        if signature.parameters.get(n, _OPTIONAL).default is inspect.Parameter.empty
    ]
    missing = [n for n in required if n not in declared and n not in entry.infer]
    if missing:
        raise NetworkError(f"{where}: {', '.join(missing)} must be given, as '{missing[0]}: ...'")


_OPTIONAL = inspect.Parameter("optional", inspect.Parameter.KEYWORD_ONLY, default=None)


def _snake(name: str) -> str:
    """``BatchNorm2d`` -> ``batch_norm2d``, ``ReLU`` -> ``relu``, ``Conv2d`` -> ``conv2d``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name).lower()


def _shown(shape: Size) -> str:
    return f"(N, {', '.join(map(str, shape[1:]))})"


def _reason(error: Exception) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first.strip()
