"""Choose how an argument of a layer is written in a class that stands for several places.

An argument has a value in each place. The expression that is declared for it is taken if it gives
these values; else, as for inferred arguments, another one that gives them all.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from convtrain.use.code.declared import IN_CHANNELS, IN_FEATURES, INDEX, NotAClassError
from convtrain.use.code.expressions import (
    Env,
    Expr,
    const,
    evaluate,
    name,
    names_in,
    written,
)
from convtrain.use.code.items import Block, Item

_COUNTS_CHANNELS = re.compile("width|channel|out|from|hidden|dim|feature|filter|plane|^in")


@dataclass
class ClassScope:
    """What is known while a class is written."""

    block: Block
    stored: dict[str, None] = field(default_factory=dict)  # parameters that forward needs
    used: set[str] = field(default_factory=set)  # parameters
    before: list[list[Expr]] = field(default_factory=list)  # channels of the layers before

    def text(self, expr: Expr, in_forward: bool) -> str:
        """Write an expression in ``__init__`` or ``forward``."""
        for each in names_in(expr):
            if each != INDEX:
                self.used.add(each)
                if in_forward:
                    self.stored[each] = None
        return written(expr, self_names=in_forward)


@dataclass
class Arguments:
    """The arguments of an item."""

    item: Item
    scope: ClassScope

    def values(self, key: str) -> list[object]:
        item = self.item
        if item.kind == "call":
            return [use.inner[key] for use in item.uses]
        found = []
        for use in item.uses:
            assert use.layer is not None
            assert item.entry is not None
            arguments = use.layer.arguments
            found.append(arguments[key] if key in arguments else self.defaults[key])
        return found

    @property
    def declared(self) -> Mapping[str, object]:
        """The arguments in the first of the places, declared and inferred."""
        layer = self.item.uses[0].layer
        return layer.arguments if layer else {}

    @property
    def defaults(self) -> Mapping[str, object]:
        from convtrain.network.arguments import signature_of

        assert self.item.entry is not None
        known = signature_of(self.item.entry)
        return {key: p.default for key, p in known.items() if p.default is not p.empty}

    def is_given(self, key: str) -> bool:
        """Tell whether an argument must be written, because it differs from its default."""
        return key not in self.defaults or any(
            _plain(value) != _plain(self.defaults[key]) for value in self.values(key)
        )

    def expr(self, key: str) -> Expr:
        values = [_plain(value) for value in self.values(key)]
        envs = [use.env for use in self.item.uses]
        for expr in self._candidates(key, values, envs):
            if _gives(expr, values, envs):
                return expr
        raise NotAClassError(self.item.key or self.scope.block.key)

    def const(self, key: str) -> object:
        """Return an argument that must be the same in all places."""
        first, *others = self.values(key)
        if any(_plain(other) != _plain(first) for other in others):
            raise NotAClassError(self.item.key or self.scope.block.key)
        return first

    def init(self, key: str) -> str:
        return self.scope.text(self.expr(key), in_forward=False)

    def forward(self, key: str) -> str:
        return self.scope.text(self.expr(key), in_forward=True)

    def _candidates(
        self, key: str, values: Sequence[object], envs: Sequence[Env]
    ) -> Iterator[Expr]:
        if (hint := self.item.hints.get(key)) is not None:
            yield hint
        else:
            for exprs in reversed(self.scope.before):
                yield from reversed(exprs)
            if key in self.scope.block.takes:
                yield name(key)
        is_constant = all(value == values[0] for value in values)
        takes = self.scope.block.takes
        yield from (name(t) for t in takes if not is_constant or _COUNTS_CHANNELS.search(t))
        if is_constant:
            yield const(values[0])
        yield from (name(IN_CHANNELS), name(IN_FEATURES))
        if all(INDEX in env for env in envs):
            yield from _by_index(values, envs, [*takes, IN_CHANNELS])


def _by_index(
    values: Sequence[object], envs: Sequence[Env], names: Sequence[str]
) -> Iterator[Expr]:
    """Yield ``a + index * b``, and ``a if index == 0 else b``."""
    index, known = name(INDEX), [name(each) for each in names]
    by_round: dict[object, list[object]] = {}
    for value, env in zip(values, envs, strict=True):
        by_round.setdefault(env[INDEX], []).append(value)
    first, second = by_round.get(0, [None])[0], by_round.get(1, [None])[0]
    starts, laters = [*known, const(first)], [*known, const(second)]
    steps = list(known)
    if isinstance(first, int) and isinstance(second, int):
        steps.append(const(second - first))
    for start in starts:
        for step in steps:
            yield ast.BinOp(start, ast.Add(), ast.BinOp(index, ast.Mult(), step))
    is_first = ast.Compare(index, [ast.Eq()], [const(0)])
    for start in starts:
        for later in laters:
            yield ast.IfExp(is_first, start, later)


def _gives(expr: Expr, values: Sequence[object], envs: Sequence[Env]) -> bool:
    try:
        return all(
            _plain(evaluate(expr, env)) == value for value, env in zip(values, envs, strict=True)
        )
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return False


def _plain(value: object) -> object:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
