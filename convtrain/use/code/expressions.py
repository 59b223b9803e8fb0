"""Arguments as Python writes them: constants, and expressions of a block's parameters."""

import ast
import json
import keyword
import math
import re
from collections.abc import Iterator, Mapping

from torch import nn

from convtrain.network.expressions import OPERATIONS

Expr = ast.expr
Env = Mapping[str, object]
"""The values of the names that are known in a place of the network, one of its uses."""

_RESERVED = {"self", "torch", "nn", "F", "math", "range", "super", "training"}
_DOLLAR = re.compile(r"\$([A-Za-z_]\w*)")


def python_name(name: str) -> str:
    """Return a parameter's name that Python allows: ``from`` is ``from_``."""
    return f"{name}_" if keyword.iskeyword(name) or name in _RESERVED else name


def attribute(name: str) -> str:
    """Return the name of an attribute that no module has yet: ``half`` is ``half_``."""
    return f"{name}_" if hasattr(nn.Module, name) else name


def name(text: str) -> Expr:
    return ast.Name(text, ast.Load())


def const(value: object) -> Expr:
    """Return a literal; a list is a tuple, as torch takes sizes."""
    if isinstance(value, list | tuple):
        return ast.Tuple([const(inner) for inner in value], ast.Load())
    return ast.Constant(value)  # type: ignore[arg-type]  # numbers, texts, None; others are shown


def tuple_of(elements: list[Expr]) -> Expr:
    return ast.Tuple(elements, ast.Load())


def parse(text: str) -> Expr:
    """Read ``$width * 4``."""
    plain = _DOLLAR.sub(lambda found: python_name(found[1]), text)
    return ast.parse(plain.strip(), mode="eval").body


def names_in(expr: Expr) -> Iterator[str]:
    return (node.id for node in ast.walk(expr) if isinstance(node, ast.Name))


def is_const(expr: Expr) -> bool:
    return not any(names_in(expr))


def evaluate(expr: Expr, env: Env) -> object:
    """Compute an expression; ValueError if it is more than arithmetic."""
    match expr:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=id):
            return env[id]
        case ast.Tuple(elts=elements):
            return tuple(evaluate(element, env) for element in elements)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            numbers = evaluate(left, env), evaluate(right, env)
            return OPERATIONS[type(op)](*numbers)  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand, env)  # type: ignore[operator]
        case ast.IfExp(test=ast.Compare(left=left), body=body, orelse=orelse):  # index == 0
            return evaluate(orelse if evaluate(left, env) else body, env)
    raise ValueError(f"{ast.unparse(expr)} is not arithmetic")


def as_int(expr: Expr) -> int:
    found = evaluate(expr, {})
    assert isinstance(found, int)
    return found


def same(one: Expr, other: Expr) -> bool:
    return ast.dump(one) == ast.dump(other)


def substitute(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    """Replace names, and compute what is constant then: ``$kernel // 2`` of 3 is 1."""
    return _Substitution(values).visit(ast.parse(ast.unparse(expr), mode="eval").body)


class _Substitution(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, Expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> Expr:
        return self._values.get(node.id, node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        return _folded(self.generic_visit(node))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        return _folded(self.generic_visit(node))


def _folded(node: ast.AST) -> ast.AST:
    assert isinstance(node, ast.expr)
    return const(evaluate(node, {})) if is_const(node) else node


def divided(expr: Expr, by: Expr) -> Expr:
    """Return ``expr // by``, simplified."""
    if isinstance(by, ast.Constant) and by.value == 1:
        return expr
    if same(expr, by):
        return const(1)
    divided = ast.BinOp(expr, ast.FloorDiv(), by)
    return const(evaluate(divided, {})) if is_const(divided) else divided


def written(expr: Expr, self_names: bool = False) -> str:
    """Return the text of an expression; with ``self_names`` its names are attributes."""
    if self_names:
        expr = substitute(expr, {id: name(f"self.{attribute(id)}") for id in names_in(expr)})
    match expr:
        case ast.Constant(value=value):
            return literal(value)
        case ast.Tuple(elts=elements):
            inside = ", ".join(written(element) for element in elements)
            return f"({inside},)" if len(elements) == 1 else f"({inside})"
    return _short_exponents(ast.unparse(expr))


def literal(value: object) -> str:
    """Return a value as Python code; floats have all digits that they need."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, list | tuple):
        return written(const(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    return _short_exponents(repr(value))


def _short_exponents(text: str) -> str:
    return re.sub(r"(?<=[\d.])e([-+]?)0+(?=\d)", r"e\1", text)
