"""Expand a declared network: replace every block and repetition by its layers.

:mod:`convtrain.network.resolve` explains the language. No code here handles tensors or shapes.
"""

import inspect
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import NamedTuple

from convtrain.config.trust import LAYER, is_dotted, load
from convtrain.errors import NetworkError, did_you_mean
from convtrain.layers import BY_NAME
from convtrain.layers.entry import Entry
from convtrain.network.arguments import check_arguments, check_types, signature_of
from convtrain.network.expressions import Values, brief, evaluate, is_expression
from convtrain.network.own import own_entry

MAX_LAYERS = 10_000  # counted while expanding, so anchors and repetitions cannot exhaust memory
MAX_VALUES = 100_000
MAX_DEPTH = 32
REPEAT, SEQUENTIAL, REQUIRED = "Repeat", "Sequential", "required"
OWN = (type, FunctionType)
IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class ExpandedLayer:
    """One layer of an expanded network."""

    name: str  # unique among its siblings
    path: str  # the name from the network's root
    where: str  # the place in the YAML, the path and the class, for errors
    entry: Entry
    arguments: Mapping[str, object]  # as declared, without ``sublayers``
    sublayers: Mapping[str, tuple["ExpandedLayer", ...]]


def expand(layers: object, blocks: object, trust: Sequence[str] = ()) -> tuple[ExpandedLayer, ...]:
    """Expand a network's list of layers; a NetworkError names the entry and its mistake.

    ``trust`` lists the packages of the user's own layers, which are imported.
    """
    return _Expander(blocks, trust).layers(layers, _Scope("network.layers", "", {}, ()))


class _Block(NamedTuple):
    takes: Mapping[str, object]
    layers: object


class _Scope(NamedTuple):
    """The context in which a layer is declared."""

    where: str  # the place in the YAML, for errors
    prefix: str  # of the layers' paths
    values: Values
    blocks: tuple[str, ...]  # the enclosing ones, outermost first


class _Declared(NamedTuple):
    kind: object  # a name, or from Python the class or function itself
    arguments: object
    name: str | None
    scope: _Scope


class _Expander:
    """Holds the blocks, and counts the layers and values that it has read."""

    def __init__(self, blocks: object, trust: Sequence[str]) -> None:
        self._trust = trust
        if not isinstance(blocks, Mapping):
            raise NetworkError(f"network.blocks={brief(blocks)}: expected 'name: {{layers: ...}}'")
        self._blocks = {str(name): _read_block(str(name), block) for name, block in blocks.items()}
        self._counts = {"layers": 0, "values": 0}

    def layers(self, declared: object, scope: _Scope) -> tuple[ExpandedLayer, ...]:
        if scope.prefix.count(".") > MAX_DEPTH:
            raise NetworkError(f"{scope.where}: layers are nested more than {MAX_DEPTH} deep")
        expanded: dict[str, ExpandedLayer] = {}
        taken: Counter[str] = Counter()
        for layer in self._without_repetitions(declared, scope):
            kind = _shown(layer.kind).rpartition(".")[2]
            taken[kind] += 1
            name = layer.name or f"{_snake(kind)}_{taken[kind]}"
            if name in expanded:
                raise NetworkError(
                    f"{layer.scope.where}: the name {name!r} is taken; give another name"
                )
            expanded[name] = self._layer(layer, name)
        return tuple(expanded.values())

    def _without_repetitions(
        self, declared: object, scope: _Scope, depth: int = 0
    ) -> list[_Declared]:
        if is_expression(declared):
            declared = self._substitute(declared, scope.values, scope.where)
        if not isinstance(declared, Sequence) or isinstance(declared, str):
            raise NetworkError(f"{scope.where}={brief(declared)}: expected a list of layers")
        if depth > MAX_DEPTH:
            raise NetworkError(f"{scope.where}: repetitions are nested more than {MAX_DEPTH} deep")
        found: list[_Declared] = []
        for index, item in enumerate(declared):
            inner = scope._replace(where=f"{scope.where}[{index}]")
            self._count("layers", MAX_LAYERS, inner.where)
            layer = _read_layer(item, inner)
            if layer.kind != REPEAT:
                found.append(layer)
                continue
            times, layers = self._repetition(layer)
            for round_ in range(times):
                self._count("layers", MAX_LAYERS, inner.where)
                repeated = inner._replace(
                    where=f"{inner.where}.layers", values={**scope.values, "index": round_}
                )
                found += self._without_repetitions(layers, repeated, depth + 1)
        return found

    def _repetition(self, layer: _Declared) -> tuple[int, object]:
        where, arguments = f"{layer.scope.where} ({REPEAT})", layer.arguments
        example = f"write '{REPEAT}: {{times: 2, layers: [...]}}'"
        if layer.name is not None:
            raise NetworkError(f"{where}: name={layer.name!r} names nothing, its layers have names")
        if not isinstance(arguments, Mapping) or set(arguments) != {"times", "layers"}:
            raise NetworkError(f"{where}: takes times and layers; {example}")
        times = self._substitute(arguments["times"], layer.scope.values, where)
        if not isinstance(times, int) or isinstance(times, bool) or times < 0:
            raise NetworkError(f"{where}: times={brief(times)} must be a whole number from 0 on")
        if not arguments["layers"]:
            raise NetworkError(f"{where}: layers is empty; {example}")
        return times, arguments["layers"]

    def _layer(self, declared: _Declared, name: str) -> ExpandedLayer:
        arguments, scope = declared.arguments, declared.scope
        kind = _shown(declared.kind)
        path = scope.prefix + name
        where = f"{scope.where} {path} ({kind})"
        if kind in self._blocks:
            layers = self._use_block(declared, where, path)
            return ExpandedLayer(name, path, where, BY_NAME[SEQUENTIAL], {}, {"layers": layers})
        if isinstance(declared.kind, OWN):
            entry = own_entry(declared.kind, where)
        elif is_dotted(kind):
            entry = own_entry(load(scope.where, kind, self._trust, LAYER), where)
        elif kind in BY_NAME:
            entry = BY_NAME[kind]
        else:
            near = did_you_mean(kind, [*BY_NAME, *self._blocks, REPEAT])
            raise NetworkError(f"{scope.where} {path}: no layer or block is called {kind}{near}")
        if entry.sublayers and not isinstance(arguments, Mapping):
            arguments = {entry.sublayers[0]: arguments}
        if not isinstance(arguments, Mapping):
            raise NetworkError(
                f"{where}: got {brief(arguments)}; arguments are given by name, "
                f"as '{kind}: {{key: value}}'"
            )
        signature = signature_of(entry)
        check_arguments(entry, signature, arguments, where)
        sublayers: dict[str, tuple[ExpandedLayer, ...]] = {}
        for argument in entry.sublayers:
            if argument in arguments:
                inner = scope._replace(
                    where=f"{scope.where}.{argument}",
                    prefix=f"{path}." if argument == "layers" else f"{path}.{argument}.",
                )
                sublayers[argument] = self.layers(arguments[argument], inner)
                is_required = signature[argument].default is inspect.Parameter.empty
                if is_required and not sublayers[argument]:
                    raise NetworkError(f"{where}: {argument} is empty; declare at least one layer")
        plain = {
            str(key): self._substitute(value, scope.values, where)
            for key, value in arguments.items()
            if key not in entry.sublayers
        }
        check_types(entry, signature, plain, where)
        return ExpandedLayer(name, path, where, entry, plain, sublayers)

    def _use_block(self, declared: _Declared, where: str, path: str) -> tuple[ExpandedLayer, ...]:
        arguments, scope = declared.arguments, declared.scope
        kind = _shown(declared.kind)
        block, around = self._blocks[kind], scope.blocks
        if kind in around:
            circle = " > ".join((*around[around.index(kind) :], kind))
            raise NetworkError(f"{where}: the block uses itself without end: {circle}")
        if not isinstance(arguments, Mapping):
            raise NetworkError(
                f"{where}: got {brief(arguments)}; what a block takes is given by name, "
                f"as '{kind}: {{key: value}}'"
            )
        for key in arguments:
            if key not in block.takes:
                known = ", ".join(block.takes) or "nothing"
                near = did_you_mean(str(key), block.takes) or f"; it takes {known}"
                raise NetworkError(f"{where}: the block takes no {key}{near}")
        values: dict[str, object] = {}
        for name, default in block.takes.items():
            if name in arguments:
                values[name] = self._substitute(arguments[name], scope.values, where)
            else:  # a default may use the parameters before it
                values[name] = self._substitute(default, values, where)
        if missing := [name for name, value in values.items() if value == REQUIRED]:
            raise NetworkError(f"{where}: {', '.join(missing)} must be given")
        inner = _Scope(f"network.blocks.{kind}.layers", f"{path}.", values, (*around, kind))
        layers = self.layers(block.layers, inner)
        if not layers:
            raise NetworkError(f"{where}: expands to nothing; declare at least one layer")
        return layers

    def _substitute(self, value: object, values: Values, where: str, depth: int = 0) -> object:
        self._count("values", MAX_VALUES, where)
        if depth > MAX_DEPTH:
            raise NetworkError(f"{where}: values are nested more than {MAX_DEPTH} deep")
        if isinstance(value, str):
            return evaluate(value, values, where) if is_expression(value) else value
        if isinstance(value, Mapping):
            return {k: self._substitute(v, values, where, depth + 1) for k, v in value.items()}
        if isinstance(value, Sequence):
            return [self._substitute(v, values, where, depth + 1) for v in value]
        return value

    def _count(self, what: str, limit: int, where: str) -> None:
        self._counts[what] += 1
        if self._counts[what] > limit:
            raise NetworkError(f"{where}: expanded, the network has more than {limit:,} {what}")


def _read_block(name: str, block: object) -> _Block:
    where = f"network.blocks.{name}"
    if not IDENTIFIER.fullmatch(name):
        raise NetworkError(f"{where}: a block's name must be letters, digits and '_'")
    if name in BY_NAME or name in (REPEAT, "name"):
        raise NetworkError(f"{where}: {name} has a meaning already; give the block another name")
    if isinstance(block, Sequence) and not isinstance(block, str):
        block = {"layers": block}
    if not isinstance(block, Mapping) or "layers" not in block or set(block) - {"takes", "layers"}:
        raise NetworkError(
            f"{where}={brief(block)}: expected '{{takes: {{width: required, stride: 1}}, "
            f"layers: [...]}}', or the list of layers alone"
        )
    takes = block.get("takes") or {}
    if not isinstance(takes, Mapping):
        raise NetworkError(f"{where}.takes={brief(takes)}: expected '{{width: required}}'")
    for key in takes:
        if not IDENTIFIER.fullmatch(str(key)) or key in ("index", "name"):
            raise NetworkError(f"{where}.takes: {key!r} cannot be the name of a parameter")
    if not block["layers"]:
        raise NetworkError(f"{where}.layers is empty; declare at least one layer")
    return _Block(takes, block["layers"])


def _read_layer(item: object, scope: _Scope) -> _Declared:
    where = scope.where
    if isinstance(item, (str, *OWN)):
        return _Declared(item, {}, None, scope)
    if isinstance(item, Mapping):
        keys = [key for key in item if key != "name"]
        if len(keys) == 1:
            name = item.get("name")
            if isinstance(name, bool):
                raise NetworkError(f"{where}: name={brief(name)} is no text; quote it: 'yes'")
            if name is not None and not IDENTIFIER.fullmatch(str(name)):
                raise NetworkError(f"{where}: name={name!r} must be letters, digits and '_'")
            kind, arguments = keys[0], item[keys[0]]
            kind = kind if isinstance(kind, OWN) else str(kind)
            return _Declared(kind, {} if arguments is None else arguments, name, scope)
        raise NetworkError(
            f"{where}: one layer an entry, found {', '.join(map(str, keys)) or 'none'}; "
            f"write '- Conv2d: {{out_channels: 16, kernel_size: 3}}'"
        )
    if isinstance(item, Sequence):
        return _Declared(SEQUENTIAL, item, None, scope)
    raise NetworkError(
        f"{where}={item!r}: expected a layer such as 'ReLU' or 'Dropout: {{p: 0.5}}'"
    )


def _shown(kind: object) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, OWN) else str(kind)


def _snake(name: str) -> str:
    """``BatchNorm2d`` -> ``batch_norm2d``, ``ReLU`` -> ``relu``, ``Conv2d`` -> ``conv2d``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name).lower()
