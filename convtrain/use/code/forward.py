"""Write the statements of a class: of ``__init__`` and ``forward``, item by item."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from convtrain.use.code.arguments import Arguments, ClassScope
from convtrain.use.code.calls import Style
from convtrain.use.code.declared import INDEX, NotAClassError
from convtrain.use.code.defined import HELPERS
from convtrain.use.code.expressions import Expr, attribute, names_in, substitute, written
from convtrain.use.code.items import Block, Item
from convtrain.use.code.layers import write_layer
from convtrain.use.code.layout import fit
from convtrain.use.code.weights import INPUT

VARIABLES = ("x", "out", "y", "z")  # of residuals inside residuals
TIGHT = 60  # characters of a branch that is written in one expression


class Value(NamedTuple):
    """What a part of ``forward`` has computed: an expression, and the layers in it."""

    text: str
    layers: tuple[str, ...] = ()  # their families; none if the text is a variable
    shape: tuple[int, ...] | None = None


class Statement(NamedTuple):
    indent: int
    text: str
    comment: str = ""

    def lines(self, indent: int) -> list[str]:
        return fit(self.text, indent + self.indent, self.comment)


@dataclass
class Statements:
    """The statements of one class; ``input_shape`` is the network's, whose shapes are shown."""

    block: Block
    style: Style
    helpers: set[str]  # functions that the file must define
    input_shape: tuple[int, ...] | None = None
    init: list[Statement] = field(default_factory=list)
    forward: list[Statement] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scope = ClassScope(self.block)
        self._indent = 0
        self._branches = self._lists = 0
        self._shape = self.input_shape

    def write(self) -> "Statements":
        value = self._flow(self.block.items, "x", "x")
        self._add(f"return {value.text}", value.shape)
        return self

    def _add(self, text: str, shape: tuple[int, ...] | None = None) -> None:
        comment = ""
        if self.input_shape and shape and shape != self._shape:
            comment, self._shape = shape_comment(shape), shape
        self.forward.append(Statement(self._indent, text, comment))

    def _assign(self, value: Value, out: str) -> Value:
        """Store a value in a variable, unless it is in one."""
        if not value.layers:
            return value
        self._add(f"{out} = {value.text}", value.shape)
        return Value(out, (), value.shape)

    def _flow(self, items: Sequence[Item], x: str, out: str, tight: bool = False) -> Value:
        """Pass the variable ``x`` through some items, and assign to ``out`` on the way."""
        value = Value(x)
        for item in _flattened(items):
            if item.kind == "composite":
                value = self._composite(item, self._assign(value, out), out)
                continue
            if item.kind == "optional":
                value = self._optional(item, self._assign(value, out), out)
                continue
            family, call = self._call(item)
            if call == INPUT:
                continue
            is_head = x == "x" and not self.forward and not self.input_shape
            if value.layers and not self._fits(value, family, call, tight, is_head):
                value = self._assign(value, out)
            shape = _output_shape(item) if self.input_shape else None
            value = Value(call.replace(INPUT, value.text), (*value.layers, family), shape)
        return value

    def _fits(self, value: Value, family: str, call: str, tight: bool, is_head: bool) -> bool:
        """Tell whether a call may have an expression as its input: ``F.relu(self.conv(x))``."""
        last = value.layers[-1]
        if family == "index":
            return last in ("module", "call")
        if self.style == "functional":
            return family == "activation" and last in ("sum", "call")
        if tight and len(value.text) + len(call) <= TIGHT and family != "method":
            return True
        if family == "norm":
            return last == "weights"
        if family == "weights":
            return is_head and value.layers == ("norm", "activation")
        return family == "activation" and last in ("weights", "norm", "sum", "call")

    def _call(self, item: Item) -> tuple[str, str]:
        """Hold what an item needs; return its family and the text of its call."""
        if item.kind in ("call", "repeat"):
            made = self.made(item)
            self._hold(item, f"nn.Sequential({made})" if item.kind == "repeat" else made)
            return "call", f"self.{item.attr}({INPUT})"
        arguments = Arguments(item, self.scope)
        layer = write_layer(arguments, self.style)
        for text in layer.init:
            self.init.append(Statement(self._indent, text))
        for helper in HELPERS:
            if any(text.startswith(f"{helper}(") for text in (*layer.init, layer.call)):
                self.helpers.add(helper)
        for key in ("out_channels", "out_features"):
            if layer.init and key in arguments.declared:
                self.scope.before.append([arguments.expr(key)])
        return layer.family, layer.call

    def _hold(self, item: Item, text: str) -> None:
        self.init.append(Statement(self._indent, f"self.{item.attr} = {text}"))

    def made(self, item: Item) -> str:
        """Return the call that makes an instance of a class, or several."""
        if item.kind == "repeat":
            assert item.times is not None
            (child,) = item.children["layers"]
            times, made = self.scope.text(item.times, in_forward=False), self.made(child)
            counter = INDEX if self._uses_index(child) else "_"
            return f"*[{made} for {counter} in range({times})]"
        block, arguments = item.block, Arguments(item, self.scope)
        assert block is not None
        required = [p for p in block.params if p not in block.defaults and not p.startswith("in_")]
        given = []
        exprs = {param: arguments.expr(param) for param in block.params}
        for param, expr in exprs.items():
            text = self.scope.text(expr, in_forward=False)
            if param in block.defaults and text == written(block.defaults[param]):
                continue
            is_first = param.startswith("in_") or required == [param]
            given.append(text if is_first else f"{param}={text}")
        self.scope.before.append([substitute(channels, exprs) for channels in block.channels])
        return f"{block.stem if block.is_function else block.class_name}({', '.join(given)})"

    def _uses_index(self, item: Item) -> bool:
        assert item.block is not None
        arguments = Arguments(item, self.scope)
        return any(INDEX in names_in(arguments.expr(param)) for param in item.block.params)

    # --- composite layers -------------------------------------------------------------------------

    def _composite(self, item: Item, value: Value, out: str) -> Value:
        assert item.entry is not None
        x, before = value.text, list(self.scope.before)
        shape = _output_shape(item) if self.input_shape else None
        match item.entry.name:
            case "Residual":
                return Value(self._residual(item, x), ("sum",), shape)
            case "Gate":
                body = self._flow(item.children["body"], x, "gate")
                body = self._assign(body, "gate")
                self.scope.before = before
                return Value(f"{body.text} * {x}", ("product",), shape)
            case "Concat":
                branches = ", ".join(self._parallel(item, x, before))
                return Value(f"torch.cat([{branches}], dim={self._dim(item)})", ("cat",), shape)
            case "Sum":
                return Value(" + ".join(self._parallel(item, x, before)), ("sum",), shape)
            case "Dense":
                return Value(self._dense(item, x), ("cat",), shape)
        raise NotAClassError(self.block.key)

    def _dim(self, item: Item) -> object:
        return Arguments(item, self.scope).const("dim")

    @contextmanager
    def _indented(self, head: str, in_init: str = "") -> Iterator[None]:
        self._add(head)
        if in_init:
            self.init.append(Statement(self._indent, in_init))
        self._indent += 4
        yield
        self._indent -= 4

    def _residual(self, item: Item, x: str) -> str:
        inner = VARIABLES[VARIABLES.index(x) + 1] if x in VARIABLES[:-1] else f"{x}_out"
        before, count = list(self.scope.before), len(self.forward)
        body, shortcut = item.children["body"], item.children.get("shortcut", [])
        value = self._flow(body, x, inner)
        after = self.scope.before
        self.scope.before = [*after[len(before) :], *before]  # those before the body come first
        is_short = len(self.forward) == count and len(value.layers) <= 1 and not shortcut
        if not is_short:
            value = self._assign(value, inner)
        other = self._flow(shortcut, x, "shortcut")
        if other.layers:
            other = self._assign(other, "shortcut")
        self.scope.before = after
        return f"{value.text} + {other.text}"

    def _optional(self, item: Item, value: Value, out: str) -> Value:
        """Write layers that some uses of the class lack."""
        x = value.text
        self.scope.used.add(item.param)
        self.scope.stored[item.param] = None
        with self._indented(f"if self.{attribute(item.param)}:", f"if {item.param}:"):
            self._assign(self._flow(item.children["layers"], x, x), x)
        return Value(x)

    def _parallel(self, item: Item, x: str, before: list[list[Expr]]) -> list[str]:
        found = []
        for child in item.children["layers"]:
            if child.kind == "repeat":
                raise NotAClassError(f"{self.block.key}.Repeat")
            self._branches += 1
            name = f"branch{self._branches}"
            self.scope.before = list(before)
            found.append(self._assign(self._flow([child], x, name, tight=True), name).text)
        return found

    def _dense(self, item: Item, x: str) -> str:
        self._lists += 1
        features = "features" if self._lists == 1 else f"features{self._lists}"
        together = f"torch.cat({features}, dim={self._dim(item)})"
        self._add(f"{features} = [{x}]")
        for child in item.children["layers"]:
            if child.kind == "repeat":
                made = self.made(child).removeprefix("*")
                self._hold(child, f"nn.ModuleList({made})")
                with self._indented(f"for layer in self.{child.attr}:"):
                    self._add(f"{features}.append(layer({together}))")
                continue
            self._add(f"{x} = {together}")
            self._add(f"{features}.append({self._flow([child], x, x).text})")
        return together


def _flattened(items: Sequence[Item]) -> Iterator[Item]:
    for item in items:
        if item.kind == "sequence":
            yield from _flattened(item.children["layers"])
        else:
            yield item


def _output_shape(item: Item) -> tuple[int, ...] | None:
    if item.kind == "repeat":
        item = item.children["layers"][0]
    layer = item.uses[-1].layer if item.uses else None
    return layer.output_shape if layer else None


def shape_comment(shape: Sequence[int]) -> str:
    return f"(N, {', '.join(map(str, shape))})"
