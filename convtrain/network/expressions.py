"""Expressions of a block's parameters: ``$width`` and ``$width * 4``."""

import ast
import operator
import re
import reprlib
from collections.abc import Callable, Mapping

from convtrain.errors import NetworkError, did_you_mean

Values = Mapping[str, object]
"""The value of each ``$name``."""

LARGEST = 10**12
MAX_CHARACTERS = 200
_NAME = re.compile(r"\$([A-Za-z_]\w*)")
OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def evaluate(text: str, values: Values, where: str) -> object:
    """Return the value of ``$width`` or ``4 * ($width + 1)``; NetworkError for anything else."""
    for name in _NAME.findall(text):
        if name not in values:
            known = ", ".join(f"${known}" for known in values) or "none"
            near = did_you_mean(name, values) or f"; known here: {known}"
            raise NetworkError(f"{where}: {text!r} names no parameter {name}{near}")
    if alone := _NAME.fullmatch(text.strip()):
        return values[alone[1]]
    try:
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"it is longer than {MAX_CHARACTERS} characters")
        return _number(ast.parse(_NAME.sub(r"_\1", text).strip(), mode="eval").body, values)
    except (SyntaxError, ValueError, ArithmeticError) as error:
        reason = "it cannot be read" if isinstance(error, SyntaxError) else error
        raise NetworkError(
            f"{where}: {text!r}: {reason}; a value is one $name, or arithmetic of numbers and "
            f"$names with + - * / // and brackets"
        ) from error


def _number(node: ast.AST, values: Values) -> float:
    value: object
    match node:
        case ast.Constant(value=value):
            pass
        case ast.Name(id=name) if name[1:] in values and name[0] == "_":
            value = values[name[1:]]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            value = OPERATIONS[type(op)](_number(left, values), _number(right, values))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -_number(operand, values)
        case _:
            raise ValueError(f"{ast.unparse(node).replace('_', '$', 1)} is not arithmetic")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{brief(value)} is not a number")
    if abs(value) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,}")
    return value


def is_expression(value: object) -> bool:
    return isinstance(value, str) and "$" in value


_REPR = reprlib.Repr()
_REPR.maxlevel = 3


def brief(value: object) -> str:
    """Show a value in one short line, at any size or depth."""
    shown = "null" if value is None else _REPR.repr(value)
    return " ".join(shown.split())
