"""From the YAML of a network to a tree of layers written out: no block or repetition is left in it.

:mod:`convtrain.network.resolve` explains the language. Nothing here knows a tensor or a shape.
"""

import inspect
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convtrain.errors import NetworkError, did_you_mean
from convtrain.layers import BY_NAME
from convtrain.layers.entry import Entry
from convtrain.network.arguments import check_names, check_types, signature_of
from convtrain.network.expressions import Values, brief, evaluate, names_values

MAX_LAYERS = 10_000  # counted while writing out, so that anchors and repetitions cannot explode
MAX_VALUES = 100_000
MAX_DEPTH = 32  # layers within layers
REPEAT, SEQUENTIAL, REQUIRED = "Repeat", "Sequential", "required"


@dataclass(frozen=True)
class ExpandedLayer:
    """One layer, written out.

    Attributes:
        name: unique within its chain; ``path`` is the name from the network's root, with dots.
        where: the place in the YAML, the path and the class, as errors show them.
        arguments: those declared; ``chains`` are the arguments that are lists of layers.
    """

    name: str
    path: str
    where: str
    entry: Entry
    arguments: Mapping[str, Any]
    chains: Mapping[str, tuple["ExpandedLayer", ...]]


def expand(layers: Any, blocks: Any) -> tuple[ExpandedLayer, ...]:
    """Write a network out: blocks become their layers, repetitions their copies.

    Raises:
        NetworkError: names the entry and what is wrong with it.
    """
    return _Writer(blocks).chain(layers, "network.layers", "", {}, ())


@dataclass(frozen=True)
class _Block:
    takes: Mapping[str, Any]
    layers: Any


class _Writer:
    """Knows the blocks, and counts what it has read."""

    def __init__(self, blocks: Any) -> None:
        if not isinstance(blocks, Mapping):
            raise NetworkError(f"network.blocks={brief(blocks)}: expected 'name: {{layers: ...}}'")
        self._blocks = {str(name): _read_block(str(name), block) for name, block in blocks.items()}
        self._known = [*BY_NAME, *self._blocks, REPEAT]
        self._counts = {"layers": 0, "values": 0}

    def chain(
        self, declared: Any, where: str, prefix: str, values: Values, using: tuple[str, ...]
    ) -> tuple[ExpandedLayer, ...]:
        """Write out a list of layers.

        Args:
            declared: the list as in the YAML.
            where: its place there, for messages; ``prefix`` is its path in the network.
            values: what ``$name`` stands for here.
            using: the blocks that this list is inside of, outermost first.
        """
        if prefix.count(".") > MAX_DEPTH:
            raise NetworkError(f"{where}: layers lie more than {MAX_DEPTH} deep in one another")
        written: list[ExpandedLayer] = []
        taken: Counter[str] = Counter()
        names: set[str] = set()
        for kind, arguments, given, place, inner in self._entries_of(declared, where, values):
            taken[kind] += 1
            name = given or f"{_snake(kind)}_{taken[kind]}"
            if name in names:
                raise NetworkError(f"{place}: the name {name!r} is taken; give another name")
            names.add(name)
            written.append(self._layer(kind, arguments, name, place, prefix, inner, using))
        return tuple(written)

    def _entries_of(self, declared: Any, where: str, values: Values, depth: int = 0) -> list[Any]:
        """Return (kind, arguments, name, place, values) of each entry, with Repeat carried out."""
        declared = self._substitute(declared, values, where) if names_values(declared) else declared
        if not isinstance(declared, Sequence) or isinstance(declared, str):
            raise NetworkError(f"{where}={brief(declared)}: expected a list of layers")
        if depth > MAX_DEPTH:
            raise NetworkError(f"{where}: repetitions lie more than {MAX_DEPTH} deep")
        found: list[Any] = []
        for index, item in enumerate(declared):
            place = f"{where}[{index}]"
            self._count("layers", MAX_LAYERS, place)
            kind, arguments, name = _read(item, place)
            if kind != REPEAT:
                found.append((kind, arguments, name, place, values))
                continue
            times, layers = self._repetition(arguments, name, f"{place} ({REPEAT})", values)
            for round_ in range(times):
                self._count("layers", MAX_LAYERS, place)
                inner = {**values, "index": round_}
                found += self._entries_of(layers, f"{place}.layers", inner, depth + 1)
        return found

    def _repetition(
        self, arguments: Any, name: str | None, where: str, values: Values
    ) -> tuple[int, Any]:
        example = f"write '{REPEAT}: {{times: 2, layers: [...]}}'"
        if name is not None:
            raise NetworkError(f"{where}: name={name!r} names nothing, its layers have names")
        if not isinstance(arguments, Mapping) or set(arguments) != {"times", "layers"}:
            raise NetworkError(f"{where}: takes times and layers; {example}")
        times = self._substitute(arguments["times"], values, where)
        if not isinstance(times, int) or isinstance(times, bool) or times < 0:
            raise NetworkError(f"{where}: times={brief(times)} must be a whole number from 0 on")
        if not arguments["layers"]:
            raise NetworkError(f"{where}: layers is empty; {example}")
        return times, arguments["layers"]

    def _layer(
        self,
        kind: str,
        arguments: Any,
        name: str,
        place: str,
        prefix: str,
        values: Values,
        using: tuple[str, ...],
    ) -> ExpandedLayer:
        path = prefix + name
        where = f"{place} {path} ({kind})"
        if kind in self._blocks:
            return self._use_block(kind, arguments, name, where, path, values, using)
        if kind not in BY_NAME:
            near = did_you_mean(kind, self._known)
            raise NetworkError(f"{place} {path}: no layer or block is called {kind}{near}")
        entry = BY_NAME[kind]
        if entry.chains and not isinstance(arguments, Mapping):
            arguments = {entry.chains[0]: arguments}
        if not isinstance(arguments, Mapping):
            raise NetworkError(
                f"{where}: got {brief(arguments)}; arguments are given by name, "
                f"as '{kind}: {{key: value}}'"
            )
        signature = signature_of(entry)
        check_names(entry, signature, arguments, where)
        chains = {
            argument: self.chain(
                arguments[argument],
                f"{place}.{argument}",
                f"{path}." if argument == "layers" else f"{path}.{argument}.",
                values,
                using,
            )
            for argument in entry.chains
            if argument in arguments
        }
        for argument, chain in chains.items():
            if not chain and signature[argument].default is inspect.Parameter.empty:
                raise NetworkError(f"{where}: {argument} is empty; declare at least one layer")
        plain = {
            str(key): self._substitute(value, values, where)
            for key, value in arguments.items()
            if key not in entry.chains
        }
        check_types(signature, plain, where)
        return ExpandedLayer(name, path, where, entry, plain, chains)

    def _use_block(
        self,
        kind: str,
        arguments: Any,
        name: str,
        where: str,
        path: str,
        values: Values,
        using: tuple[str, ...],
    ) -> ExpandedLayer:
        block = self._blocks[kind]
        if kind in using:
            circle = " > ".join((*using[using.index(kind) :], kind))
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
        inside: dict[str, Any] = {}
        for parameter, default in block.takes.items():
            if parameter in arguments:
                inside[parameter] = self._substitute(arguments[parameter], values, where)
            else:  # a default may speak of the parameters before it
                inside[parameter] = self._substitute(default, inside, where)
        missing = [parameter for parameter, value in inside.items() if value == REQUIRED]
        if missing:
            raise NetworkError(f"{where}: {', '.join(missing)} must be given")
        at = f"network.blocks.{kind}.layers"
        chain = self.chain(block.layers, at, f"{path}.", inside, (*using, kind))
        if not chain:
            raise NetworkError(f"{where}: comes out empty; declare at least one layer")
        return ExpandedLayer(name, path, where, BY_NAME[SEQUENTIAL], {}, {"layers": chain})

    def _substitute(self, value: Any, values: Values, where: str, depth: int = 0) -> Any:
        """Return ``value`` with every ``$name`` in it replaced."""
        self._count("values", MAX_VALUES, where)
        if depth > MAX_DEPTH:
            raise NetworkError(f"{where}: values lie more than {MAX_DEPTH} deep in one another")
        if isinstance(value, str) and "$" in value:
            return evaluate(value, values, where)
        if isinstance(value, Mapping):
            return {k: self._substitute(v, values, where, depth + 1) for k, v in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self._substitute(v, values, where, depth + 1) for v in value]
        return value

    def _count(self, what: str, limit: int, where: str) -> None:
        self._counts[what] += 1
        if self._counts[what] > limit:
            raise NetworkError(f"{where}: written out, the network has more than {limit:,} {what}")


def _read_block(name: str, block: Any) -> _Block:
    where = f"network.blocks.{name}"
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
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
        if not re.fullmatch(r"[A-Za-z_]\w*", str(key)) or key in ("index", "name"):
            raise NetworkError(f"{where}.takes: {key!r} cannot be the name of a parameter")
    if not block["layers"]:
        raise NetworkError(f"{where}.layers is empty; declare at least one layer")
    return _Block(takes, block["layers"])


def _read(item: Any, where: str) -> tuple[str, Any, str | None]:
    """Return class or block, arguments and name of an entry."""
    if isinstance(item, str):
        return item, {}, None
    if isinstance(item, Mapping):
        keys = [key for key in item if key != "name"]
        if len(keys) == 1:
            name = item.get("name")
            if isinstance(name, bool):
                raise NetworkError(f"{where}: name={brief(name)} is no text; quote it: 'yes'")
            if name is not None and not re.fullmatch(r"[A-Za-z_]\w*", str(name)):
                raise NetworkError(f"{where}: name={name!r} must be letters, digits and '_'")
            return str(keys[0]), item[keys[0]] if item[keys[0]] is not None else {}, name
        raise NetworkError(
            f"{where}: one layer an entry, found {', '.join(map(str, keys)) or 'none'}; "
            f"write '- Conv2d: {{out_channels: 16, kernel_size: 3}}'"
        )
    if isinstance(item, Sequence):
        return SEQUENTIAL, item, None
    raise NetworkError(
        f"{where}={item!r}: expected a layer such as 'ReLU' or 'Dropout: {{p: 0.5}}'"
    )


def _snake(name: str) -> str:
    """``BatchNorm2d`` -> ``batch_norm2d``, ``ReLU`` -> ``relu``, ``Conv2d`` -> ``conv2d``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name).lower()
