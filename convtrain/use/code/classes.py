"""Write a class: what ``__init__`` makes of each item, and the statements of ``forward``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from convtrain.layers.entry import Entry
from convtrain.use.code.arguments import Arguments, ClassScope
from convtrain.use.code.calls import (
    ACTIVATIONS,
    BATCH_NORMS,
    HELD,
    NORMS,
    Style,
    call_without_weights,
    constructor,
    is_held,
    is_module_always,
)
from convtrain.use.code.declared import IN_CHANNELS, IN_FEATURES, INDEX, NotAClassError
from convtrain.use.code.expressions import Expr, names_in, substitute, written
from convtrain.use.code.layout import exploded, fit
from convtrain.use.code.plan import Block, Item
from convtrain.use.code.weights import DRAWN, INPUT, scale, with_weights

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
class ClassWriter:
    """Writes one class; ``input_shape`` is that of the whole network, whose shapes are shown."""

    block: Block
    style: Style
    helpers: set[str]  # functions that the file must define
    input_shape: tuple[int, ...] | None = None
    last: list[str] = field(default_factory=list)  # lines at the end of __init__
    init: list[Statement] = field(default_factory=list)
    forward: list[Statement] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scope = ClassScope(self.block)
        self._indent = 0
        self._branches = self._lists = 0
        self._shape = self.input_shape

    def write(self) -> list[str]:
        if self.block.is_function:
            return self._function()
        self.compute()
        parameters = self._parameters()
        lines = [f"class {self.block.class_name}(nn.Module):"]
        lines += fit(f"def __init__({', '.join(['self', *parameters])}):", 4)
        lines.append(" " * 8 + "super().__init__()")
        lines += [f"        self.{each} = {each}" for each in self.scope.stored]
        for statement in self.init:
            lines += statement.lines(8)
        for each in self.last:
            text = each.lstrip()
            lines += fit(text, 8 + len(each) - len(text))
        first = f"  # {_shape(self.input_shape)}" if self.input_shape else ""
        lines += ["", f"    def forward(self, x):{first}"]
        for statement in self.forward:
            lines += statement.lines(8)
        return lines

    def compute(self) -> None:
        """Find the statements."""
        if not self.forward:
            value = self._flow(self.block.items, "x", "x")
            self._add(f"return {value.text}", value.shape)

    def _function(self) -> list[str]:
        items = [self._made(item) for item in self.block.items]
        parameters = ", ".join(self._parameters())
        lines = fit(f"def {self.block.stem}({parameters}):")
        text = f"return nn.Sequential({', '.join(items)})"
        lines += (
            fit(text, 4) if len(items) == 1 else exploded("return nn.Sequential(", items, ")", 4)
        )
        return lines

    def _parameters(self) -> list[str]:
        """Choose the parameters of the class, those without a default first."""
        block, used = self.block, self.scope.used
        params = [p for p in dict.fromkeys([IN_CHANNELS, IN_FEATURES, *block.takes]) if p in used]
        params.sort(key=lambda param: param in block.defaults)
        block.params = params
        block.channels = [expr for exprs in self.scope.before for expr in exprs]
        defaults = {p: written(block.defaults[p]) for p in params if p in block.defaults}
        return [f"{p}={defaults[p]}" if p in defaults else p for p in params]

    # --- __init__ ---------------------------------------------------------------------------------

    def _hold(self, item: Item, text: str) -> None:
        self.init.append(Statement(self._indent, f"self.{item.attr} = {text}"))

    def _made(self, item: Item) -> str:
        """Return the call that makes an instance of a class, or several."""
        if item.kind == "repeat":
            assert item.times is not None
            (child,) = item.children["layers"]
            times, made = self.scope.text(item.times, in_forward=False), self._made(child)
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

    # --- forward ----------------------------------------------------------------------------------

    def _add(self, text: str, shape: tuple[int, ...] | None = None) -> None:
        comment = ""
        if self.input_shape and shape and shape != self._shape:
            comment, self._shape = _shape(shape), shape
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
        """Write what ``__init__`` holds of an item; return its family and the text of its call."""
        if item.kind in ("call", "repeat"):
            made = self._made(item)
            self._hold(item, f"nn.Sequential({made})" if item.kind == "repeat" else made)
            return "call", f"self.{item.attr}({INPUT})"
        entry, arguments = item.entry, Arguments(item, self.scope)
        assert entry is not None
        family = _family(entry)
        if entry.name == "LayerScale" and entry.own is None:
            written_ = scale(arguments)
            self._hold_all(written_.init)
            return "method", written_.call
        if not is_held(entry, self.style):
            if entry.name == "StochasticDepth":
                self.helpers.add("stochastic_depth")
            return family, call_without_weights(arguments, INPUT)
        as_module = is_module_always(entry) or _needs_module(arguments)
        if self.style == "nn" or as_module:
            item.is_module = as_module
            if self.style == "functional" and entry.own is None:
                text = f"# torch.nn.functional has no {entry.name}: the module holds its weights"
                self.init.append(Statement(self._indent, text))
            self._hold(item, constructor(arguments))
            result = "module" if as_module else family, f"self.{item.attr}({INPUT})"
        else:
            parts = with_weights(arguments)
            self._hold_all(parts.init)
            result = family, parts.call
        for key in ("out_channels", "out_features"):
            if key in arguments.item.uses[0].layer.arguments:  # type: ignore[union-attr]
                self.scope.before.append([arguments.expr(key)])
        return result

    def _hold_all(self, statements: Sequence[str]) -> None:
        for text in statements:
            if text.startswith(DRAWN):
                self.helpers.add(DRAWN)
            self.init.append(Statement(self._indent, text))

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
        with self._indented(f"if self.{item.param}:", f"if {item.param}:"):
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
                made = self._made(child).removeprefix("*")
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


def _family(entry: Entry) -> str:
    if entry.own is not None:
        return "weights" if isinstance(entry.own, type) else "other"
    if entry.name in NORMS:
        return "norm"
    if entry.name in ACTIVATIONS:
        return "activation"
    if entry.name in HELD:
        return "weights"
    families = {"Pick": "index", "Permute": "method", "Select": "method", "Unflatten": "method"}
    return families.get(entry.name, "other")


def _needs_module(arguments: Arguments) -> bool:
    """Tell whether a batch norm counts its batches, which no function does."""
    entry = arguments.item.entry
    assert entry is not None
    if entry.name not in (*BATCH_NORMS, "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"):
        return False
    return arguments.const("momentum") is None


def _output_shape(item: Item) -> tuple[int, ...] | None:
    if item.kind == "repeat":
        item = item.children["layers"][0]
    layer = item.uses[-1].layer if item.uses else None
    return layer.output_shape if layer else None


def _shape(shape: Sequence[int] | None) -> str:
    return f"(N, {', '.join(map(str, shape or ()))})"
