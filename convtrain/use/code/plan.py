"""The plan of the file: its classes, and the content of each.

A plan is static: an :class:`Item` stands for an entry of a list of layers, a :class:`Block` for a
class. Small blocks are written where they are used. :mod:`convtrain.use.code.uses` finds
the layers of the network that an item stands for.
"""

import keyword
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from convtrain.config.trust import LAYER, is_dotted, load
from convtrain.layers import BY_NAME
from convtrain.network.expand import OWN, REPEAT, SEQUENTIAL
from convtrain.network.own import own_entry
from convtrain.use.code import declared
from convtrain.use.code.declared import INDEX, Hole, Listed, Names, NotAClassError, entries
from convtrain.use.code.expressions import (
    Expr,
    as_int,
    const,
    is_const,
    name,
    names_in,
    python_name,
    same,
)
from convtrain.use.code.items import Block, Item, walk
from convtrain.use.code.repeated import with_block

MAX_UNROLLED = 6  # layers of a repetition that are written one by one
RESERVED = (
    *(
        "train",
        "torch",
        "nn",
        "F",
        "math",
        "range",
        "super",
        "print",
        "DataLoader",
        "TensorDataset",
    ),
    *(
        "draw_like_torch",
        "stochastic_depth",
        "focal_loss",
        "class_weights",
        "model",
        "optimizer",
        "scheduler",
    ),
)
"""Names that the file uses for something else."""
PARALLEL = ("Concat", "Sum", "Dense")
SHORT = {"Conv2d": "Conv", "BatchNorm2d": "BN"}
"""Words of a class that is named after its layers."""


class Scope(NamedTuple):
    """The context of a list of layers."""

    names: Names
    around: str = ""  # the class
    inline: bool = False  # whether blocks inside must not be classes
    parallel: bool = False  # whether each layer is a branch by itself


class Planner:
    """Builds plans; ``inlined`` has the keys of what must not be a class, or a loop."""

    def __init__(self, layers: object, blocks: Mapping[str, object], trust: Sequence[str]) -> None:
        self._trust = trust
        self._layers, blocks, self._spread = with_block(layers, blocks)
        self._raw = {name: declared.parts(block) for name, block in blocks.items()}
        self._values = declared.collect(self._layers, self._raw)
        self.inlined: set[str] = set()

    def plan(self, class_name: str) -> tuple[Block, list[Block]]:
        """Return the block of the whole network, and the others, each after those that it uses."""
        self._blocks: list[Block] = []
        self._classes: dict[str, Block] = {}
        self._taken = {class_name, *RESERVED}
        items = self._items(self._layers, Scope({}))
        return Block("", "", class_name, [], {}, items), self._blocks

    def _unique(self, name: str) -> str:
        """Return a name that no other class or function of the file has."""
        unique, number = name, 1
        while unique in self._taken or keyword.iskeyword(unique):
            number += 1
            unique = f"{name}{number}"
        self._taken.add(unique)
        return unique

    def _items(self, raw: object, scope: Scope) -> list[Item]:
        if isinstance(raw, str):  # such as $shortcut
            value = scope.names[python_name(raw.strip().lstrip("$"))]
            if isinstance(value, Listed):
                return self._items(value.raw, scope._replace(names=value.names))
            assert isinstance(value, Hole)
            inside = self._items(value.raw, Scope({}, scope.around, inline=True))
            for item in walk(inside):
                item.hints = {}  # they differ between the uses
            if not value.is_optional:
                return inside
            return [Item("optional", param=value.param, children={"layers": inside})]
        items: list[Item] = []
        for kind, arguments, label in entries(raw):
            if kind == REPEAT:
                items += self._repeat(arguments, scope)
            elif kind in self._raw:
                used = self._use(str(kind), arguments, label, scope)
                spreads = kind == self._spread and used.kind == "sequence"
                items += used.children["layers"] if spreads else [used]
            else:
                items.append(self._layer(kind, arguments, label, scope))
        return items

    def _layer(
        self, kind: object, arguments: Mapping[str, object], label: str | None, scope: Scope
    ) -> Item:
        if isinstance(kind, OWN) or is_dotted(kind):
            own = kind if isinstance(kind, OWN) else load("", str(kind), self._trust, LAYER)
            entry = own_entry(own, str(kind))
        else:
            entry = BY_NAME[str(kind)]
        inner = scope._replace(parallel=entry.name in PARALLEL)
        children = {
            argument: self._items(arguments[argument], inner)
            for argument in entry.sublayers
            if argument in arguments
        }
        if entry.name == SEQUENTIAL:
            return Item("sequence", children=children)
        hints = {
            key: value
            for key, raw in arguments.items()
            if key not in entry.sublayers
            and isinstance(value := declared.value(raw, scope.names), Expr)
        }
        return Item("composite" if entry.sublayers else "layer", label, entry, hints, children)

    # --- blocks -----------------------------------------------------------------------------------

    def _use(
        self, kind: str, arguments: Mapping[str, object], label: str | None, scope: Scope
    ) -> Item:
        takes, layers = self._raw[kind]
        given: dict[str, Expr | Listed | Hole] = {}
        for take, default in takes.items():
            known = scope.names if take in arguments else dict(given)
            given[python_name(take)] = declared.value(arguments.get(take, default), known)
        if scope.inline or kind in self.inlined or self._is_small(kind):
            inside = self._items(layers, scope._replace(names=given, parallel=False))
            return Item("sequence", children={"layers": inside})
        hints = {}
        for take, value in given.items():
            match value:
                case Hole(param=param, is_optional=True):
                    hints[take] = name(param)
                case Listed() | Hole():
                    hints[take] = const(bool(value.raw))
                case _:
                    hints[take] = value
        return Item("call", label, hints=hints, block=self._class(kind))

    def _is_small(self, kind: str) -> bool:
        """Tell whether a block is so small that its layers are written where it is used."""
        layers = self._raw[kind][1]
        inside = [] if isinstance(layers, str) else [kind for kind, _, _ in entries(layers)]
        plain = all(k in BY_NAME and not BY_NAME[str(k)].sublayers for k in inside)
        passes_on = len(inside) == 1 and inside[0] in self._raw
        return len(self._values[kind]) < 2 or passes_on or (plain and len(inside) <= 2)

    def _class(self, kind: str) -> Block:
        if kind not in self._classes:
            names, defaults = declared.parameters(kind, self._raw[kind][0], self._values[kind])
            takes = [t for t, v in names.items() if isinstance(v, Hole) or _is_name(v, t)]
            stem, class_name = self._unique(kind), self._unique(f"{_camel(kind)}Block")
            spreads = kind == self._spread
            block = Block(kind, stem, class_name, takes, defaults, is_spread=spreads)
            block.items = self._items(self._raw[kind][1], Scope(names, kind))
            self._classes[kind] = block
            self._blocks.append(block)
        return self._classes[kind]

    # --- repetitions ------------------------------------------------------------------------------

    def _repeat(self, arguments: Mapping[str, object], scope: Scope) -> list[Item]:
        times, layers = declared.value(arguments["times"], scope.names), arguments["layers"]
        assert isinstance(times, Expr)
        key = f"{scope.around}.{REPEAT}"
        apart = scope.parallel and len(list(entries(layers))) > 1
        if is_const(times):
            rounds = as_int(times)
            few = rounds * len(list(entries(layers))) <= MAX_UNROLLED and not scope.around
            if few or scope.inline or key in self.inlined or apart:
                return [
                    item
                    for index in range(rounds)
                    for item in self._items(
                        layers, scope._replace(names={**scope.names, INDEX: const(index)})
                    )
                ]
        if key in self.inlined or scope.inline or apart:
            raise NotAClassError(scope.around)
        inner = scope._replace(names={**scope.names, INDEX: name(INDEX)}, parallel=False)
        items = self._items(layers, inner)
        if len(items) != 1 or items[0].kind != "call":
            items = [self._made_class(items, scope.around, key)]
        items[0].key = key
        return [Item("repeat", times=times, children={"layers": items})]

    def _made_class(self, items: list[Item], around: str, key: str) -> Item:
        """Make a class of the layers of a repetition; its parameters are the names in them."""
        hints: dict[str, Expr] = {}

        def own(argument: str, expr: Expr) -> Expr:
            if INDEX in names_in(expr):
                while argument in hints:
                    argument += "_"
                hints[argument] = expr
                return name(argument)
            hints.update({used: name(used) for used in names_in(expr)})
            return expr

        for item in walk(items):
            item.hints = {argument: own(argument, expr) for argument, expr in item.hints.items()}
            if item.param:
                hints[item.param] = name(item.param)
            if item.times is not None:
                item.times = own("times", item.times)
        made = [item.entry.name for item in walk(items) if item.entry is not None]
        if len(made) == len(walk(items)) <= 3:
            class_name = "".join(SHORT.get(word, word) for word in made)
        else:
            class_name = f"{_camel(around)}Layer"
        stem, class_name = self._unique("layer"), self._unique(class_name)
        block = Block(key, stem, class_name, list(hints), {}, items, is_spread=True)
        self._blocks.append(block)
        return Item("call", hints=hints, block=block)


def _is_name(value: object, text: str) -> bool:
    return isinstance(value, Expr) and same(value, name(text))


def _camel(text: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in text.split("_"))
