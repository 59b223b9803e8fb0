"""The attributes of the file's classes, and the layers of the network that each item stands for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from convtrain.network.resolve import ResolvedLayer, ResolvedNetwork
from convtrain.use.code.calls import Style, is_held, stem_of
from convtrain.use.code.declared import IN_CHANNELS, IN_FEATURES, INDEX
from convtrain.use.code.expressions import (
    Env,
    as_int,
    attribute,
    const,
    evaluate,
    name,
    python_name,
    substitute,
)
from convtrain.use.code.items import Block, Item, Use, walk

TENSORS = ("weight", "bias", "mean", "var")  # of a layer in the functional style


def name_attributes(block: Block, style: Style) -> None:
    """Name what a class holds: as declared, or conv1, conv2, fc."""
    held = [item for item in walk(block.items) if _is_held(item, style)]
    stems = [attribute(python_name(item.label or _stem(item))) for item in held]
    counts, taken = Counter(stems), {*block.takes, IN_CHANNELS, IN_FEATURES}
    numbers: Counter[str] = Counter()
    for item, stem in zip(held, stems, strict=True):
        attr = stem
        while attr in taken or (attr == stem and counts[stem] > 1):
            numbers[stem] += 1
            attr = f"{stem}{numbers[stem]}"
        taken |= {attr, *(f"{attr}_{tensor}" for tensor in TENSORS)}
        item.attr = attr


def _is_held(item: Item, style: Style) -> bool:
    if item.kind == "layer":
        assert item.entry is not None
        return is_held(item.entry, style)
    return item.kind in ("call", "repeat")


def _stem(item: Item) -> str:
    if item.entry is not None:
        return stem_of(item.entry)
    if item.kind == "call":
        assert item.block is not None
        return item.block.stem
    (child,) = item.children["layers"]
    return "layers" if child.block is None or child.block.is_spread else f"{child.block.stem}s"


def rename_inputs(blocks: Sequence[Block]) -> None:
    """Call a parameter ``in_channels`` that always is, if its own name is a keyword of Python."""
    for block in blocks:
        for take in [take for take in block.takes if take.endswith("_")]:
            if all(IN_CHANNELS in use and use[IN_CHANNELS] == use[take] for use in block.uses):
                block.takes.remove(take)
                for item in walk(block.items):
                    for key, hint in item.hints.items():
                        item.hints[key] = substitute(hint, {take: name(IN_CHANNELS)})


@dataclass
class _Rest:
    """The layers of a list that are still to come."""

    layers: Sequence[ResolvedLayer]
    place: int = 0

    def next(self) -> ResolvedLayer:
        self.place += 1
        return self.layers[self.place - 1]

    @property
    def first(self) -> ResolvedLayer:
        return self.layers[self.place]


@dataclass
class Places:
    """The place of each layer of the network in the file."""

    found: dict[str, tuple[str, Item]] = field(default_factory=dict)
    """Path of a layer to the path of what holds it, such as ``stage1.0``, and its item."""

    def find(self, main: Block, network: ResolvedNetwork) -> "Places":
        self._visit(main.items, _Rest(network.layers), {}, "")
        return self

    def _visit(self, items: Sequence[Item], rest: _Rest, env: Env, holder: str) -> None:
        for item in items:
            match item.kind:
                case "repeat":
                    assert item.times is not None
                    (child,) = item.children["layers"]
                    for index in range(as_int(const(evaluate(item.times, env)))):
                        at = f"{_joined(holder, item.attr)}.{index}"
                        self._call(child, rest, {**env, INDEX: index}, at)
                case "call":
                    self._call(item, rest, env, _joined(holder, item.attr))
                case "optional":
                    if env[item.param]:
                        self._visit(item.children["layers"], rest, env, holder)
                case "sequence":
                    self._inside(item, rest.next(), env, holder)
                case _:
                    layer = rest.next()
                    item.uses.append(Use(env, layer))
                    self.found[layer.path] = (holder, item)
                    self._inside(item, layer, env, holder)

    def _inside(self, item: Item, layer: ResolvedLayer, env: Env, holder: str) -> None:
        for argument, children in item.children.items():
            self._visit(children, _Rest(layer.sublayers.get(argument, ())), env, holder)

    def _call(self, item: Item, rest: _Rest, env: Env, holder: str) -> None:
        block = item.block
        assert block is not None
        shape = rest.first.input_shape
        inner = {take: evaluate(hint, env) for take, hint in item.hints.items()}
        around = {IN_CHANNELS: shape[0]} if len(shape) > 2 else {IN_FEATURES: shape[-1]}
        inner = {**around, **inner}
        block.uses.append(inner)
        if block.is_spread:
            self._visit(block.items, rest, inner, holder)
            item.uses.append(Use(env, rest.layers[rest.place - 1], inner))
            return
        layer = rest.next()
        item.uses.append(Use(env, layer, inner))
        rest = _Rest(layer.sublayers["layers"])
        if not block.is_function:
            self._visit(block.items, rest, inner, holder)
            return
        count = 0
        for each in block.items:  # an nn.Sequential
            if each.kind == "call":
                self._call(each, rest, inner, f"{holder}.{count}")
                count += 1
                continue
            assert each.times is not None
            for index in range(as_int(const(evaluate(each.times, inner)))):
                (child,) = each.children["layers"]
                self._call(child, rest, {**inner, INDEX: index}, f"{holder}.{count}")
                count += 1


def _joined(holder: str, attr: str) -> str:
    return f"{holder}.{attr}" if holder else attr
