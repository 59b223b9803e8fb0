"""A network as it is declared: entries, and the values that the parameters of blocks have.

The network has been expanded before, so that its declaration is known to be right.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from convtrain.layers import BY_NAME
from convtrain.network.expand import OWN, REPEAT, REQUIRED, SEQUENTIAL
from convtrain.network.expressions import is_expression
from convtrain.use.code.expressions import (
    Env,
    Expr,
    as_int,
    const,
    evaluate,
    is_const,
    name,
    parse,
    python_name,
    substitute,
    tuple_of,
)

INDEX = "index"  # of a repetition
IN_CHANNELS, IN_FEATURES = "in_channels", "in_features"  # of the input of a class
Parts = tuple[Mapping[str, object], object]
"""What a block takes, with the defaults, and its layers."""


class NotAClassError(Exception):
    """The key of a block that cannot be a class, or of a repetition that cannot be a loop."""


class Listed(NamedTuple):
    """A list of layers as the value of a parameter, and the names that are known inside it."""

    raw: object
    names: "Names"


class Hole(NamedTuple):
    """A list of layers that differs between the uses of a block."""

    param: str
    raw: object  # the list of one use
    is_optional: bool  # whether it is empty in others


Value: TypeAlias = Expr | Listed | Hole
Names: TypeAlias = Mapping[str, Value]


def parts(block: object) -> Parts:
    if isinstance(block, Mapping):
        return {str(take): value for take, value in (block.get("takes") or {}).items()}, block[
            "layers"
        ]
    return {}, block


def entries(layers: object) -> Iterator[tuple[object, Mapping[str, object], str | None]]:
    """Yield the kind, the arguments and the name of each entry of a list of layers."""
    assert isinstance(layers, Sequence)
    for item in layers:
        if isinstance(item, Mapping):
            kind = next(key for key in item if key != "name")
            arguments, label = item[kind] or {}, item.get("name")
            if not isinstance(arguments, Mapping):  # Residual: [...]
                arguments = {BY_NAME[str(kind)].sublayers[0]: arguments}
            yield kind if isinstance(kind, OWN) else str(kind), arguments, label
        elif isinstance(item, (str, *OWN)):
            yield item, {}, None
        else:
            yield SEQUENTIAL, {"layers": item}, None


def value(raw: object, names: Names) -> Value:
    """Return a declared value with the names replaced that are known."""
    if is_expression(raw):
        expr = parse(str(raw))
        alone = names.get(expr.id) if isinstance(expr, ast.Name) else None
        if isinstance(alone, Listed | Hole):
            return alone
        return substitute(expr, {k: v for k, v in names.items() if isinstance(v, Expr)})
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        if _is_layers(raw):
            return Listed(raw, names)
        elements = [value(element, names) for element in raw]
        return tuple_of([element for element in elements if isinstance(element, Expr)])
    return const(raw)


def _is_layers(raw: object) -> bool:
    """Tell a list of layers from a list of numbers; an empty one is a list of layers."""
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        return False
    return all(
        _is_layers(each) if isinstance(each, list | tuple) else _is_layer(each) for each in raw
    )


def _is_layer(raw: object) -> bool:
    return isinstance(raw, (Mapping, *OWN)) or (isinstance(raw, str) and not is_expression(raw))


# --- the parameters of blocks ---------------------------------------------------------------------


def collect(layers: object, blocks: Mapping[str, Parts]) -> dict[str, list[Env]]:
    """Return the values of each block's parameters in each of its uses."""
    found: dict[str, list[Env]] = {block: [] for block in blocks}

    def visit(raw: object, env: Env) -> None:
        for kind, arguments, _ in entries(concrete(raw, env) if isinstance(raw, str) else raw):
            if kind == REPEAT:
                for index in range(as_int(const(concrete(arguments["times"], env)))):
                    visit(arguments["layers"], {**env, INDEX: index})
            elif kind in blocks:
                takes, inside = blocks[str(kind)]
                inner: dict[str, object] = {}
                for take, default in takes.items():
                    given = take in arguments
                    chosen = concrete(arguments[take], env) if given else concrete(default, inner)
                    inner[python_name(take)] = chosen
                found[str(kind)].append(inner)
                visit(inside, inner)
            elif kind in BY_NAME:
                for argument in BY_NAME[str(kind)].sublayers:
                    visit(arguments.get(argument, []), env)

    visit(layers, {})
    return found


def concrete(raw: object, env: Env) -> object:
    """Return a declared value with all names replaced by their values."""
    if is_expression(raw):
        return evaluate(parse(str(raw)), env)
    if isinstance(raw, Mapping):
        return {key: concrete(inner, env) for key, inner in raw.items()}
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        return [concrete(inner, env) for inner in raw]
    return raw


def parameters(
    block: str, takes: Mapping[str, object], values: Sequence[Env]
) -> tuple[dict[str, Value], dict[str, Expr]]:
    """Return the names that are known in a block that is a class, and the defaults among them.

    A parameter whose default follows from others is replaced by the default where no use sets it.
    """
    names: dict[str, Value] = {}
    defaults: dict[str, Expr] = {}
    for raw_take, default in takes.items():
        take = python_name(raw_take)
        found = [env[take] for env in values]
        if any(isinstance(each, list) and _is_layers(each) for each in found):
            full = [each for each in found if each]
            if len({skeleton(each) for each in full}) > 1:
                raise NotAClassError(block)
            if len({json.dumps(each, default=str) for each in found}) == 1:
                names[take] = Listed(found[0], {})
            else:
                names[take] = Hole(take, full[0], len(full) < len(found))
                defaults[take] = const(False)
            continue
        names[take] = name(take)
        if default == REQUIRED:
            continue
        given = value(default, names)
        if isinstance(given, Expr) and is_const(given):
            defaults[take] = given
        elif isinstance(given, Expr) and _follows(take, given, values):
            names[take] = given
    return names, defaults


def _follows(take: str, expr: Expr, values: Sequence[Env]) -> bool:
    try:
        return all(env[take] == evaluate(expr, env) for env in values)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return False  # nothing has checked a default that each use replaces


def skeleton(raw: object) -> str:
    """Return a value without its numbers, so that alike lists of layers are equal."""
    if isinstance(raw, Mapping):
        return str([(str(key), skeleton(inner)) for key, inner in raw.items()])
    if isinstance(raw, list | tuple):
        return str([skeleton(inner) for inner in raw])
    return "" if isinstance(raw, int | float) and not isinstance(raw, bool) else str(raw)
