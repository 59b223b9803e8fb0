"""Write a class, or a function that returns an ``nn.Sequential``, from its statements."""

from collections.abc import Sequence

from convtrain.use.code.calls import Style
from convtrain.use.code.declared import IN_CHANNELS, IN_FEATURES
from convtrain.use.code.expressions import attribute, written
from convtrain.use.code.forward import Statements, shape_comment
from convtrain.use.code.items import Block
from convtrain.use.code.layout import exploded, fit


def write_block(block: Block, style: Style, helpers: set[str]) -> list[str]:
    """Return the lines of a block; ``helpers`` gains the functions that it calls."""
    statements = Statements(block, style, helpers)
    if not block.is_function:
        return class_lines(statements.write())
    items = [statements.made(item) for item in block.items]
    lines = fit(f"def {block.stem}({', '.join(_parameters(statements))}):")
    if len(items) > 1:
        return [*lines, *exploded("return nn.Sequential(", items, ")", 4)]
    return [*lines, *fit(f"return nn.Sequential({items[0]})", 4)]


def class_lines(statements: Statements, last: Sequence[str] = ()) -> list[str]:
    """Return the lines of a class; ``last`` are lines at the end of its ``__init__``."""
    parameters, shape = _parameters(statements), statements.input_shape
    lines = [f"class {statements.block.class_name}(nn.Module):"]
    lines += fit(f"def __init__({', '.join(['self', *parameters])}):", 4)
    lines.append("        super().__init__()")
    lines += [f"        self.{attribute(each)} = {each}" for each in statements.scope.stored]
    for statement in statements.init:
        lines += statement.lines(8)
    for each in last:
        text = each.lstrip()
        lines += fit(text, 8 + len(each) - len(text))
    comment = f"  # {shape_comment(shape)}" if shape else ""
    lines += ["", f"    def forward(self, x):{comment}"]
    for statement in statements.forward:
        lines += statement.lines(8)
    return lines


def _parameters(statements: Statements) -> list[str]:
    """Choose the parameters of a class, those without a default first, and write them."""
    block, scope = statements.block, statements.scope
    known = dict.fromkeys([IN_CHANNELS, IN_FEATURES, *block.takes])
    block.params = [param for param in known if param in scope.used]
    block.params.sort(key=lambda param: param in block.defaults)
    block.channels = [expr for exprs in scope.before for expr in exprs]
    defaults = {p: written(block.defaults[p]) for p in block.params if p in block.defaults}
    return [f"{p}={defaults[p]}" if p in defaults else p for p in block.params]
