"""What a plan consists of: items, blocks, and the places in the network that items stand for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from convtrain.layers.entry import Entry
from convtrain.network.resolve import ResolvedLayer
from convtrain.use.code.expressions import Env, Expr


@dataclass(frozen=True)
class Use:
    """One of the places in the network that an item stands for."""

    env: Env  # the values of the class's parameters there
    layer: ResolvedLayer | None = None  # the last one, of a class that is spread
    inner: Env = field(default_factory=dict)  # of a call: the parameters of the class


@dataclass
class Item:
    """An entry of a list of layers."""

    kind: Literal["layer", "composite", "call", "sequence", "repeat", "optional"]
    label: str | None = None  # as declared
    entry: Entry | None = None
    hints: dict[str, Expr] = field(default_factory=dict)  # arguments as declared
    children: dict[str, list["Item"]] = field(default_factory=dict)
    block: "Block | None" = None  # of a call
    times: Expr | None = None  # of a repeat
    param: str = ""  # of an optional: the parameter that says whether it is there
    uses: list[Use] = field(default_factory=list)
    attr: str = ""  # the attribute that holds it
    is_module: bool = False  # in the functional style, too
    is_frozen: bool = False  # a norm that may be frozen, in one of the places
    key: str = ""  # of the repetition whose layers it calls


@dataclass
class Block:
    """A class, or a function that returns an ``nn.Sequential``."""

    key: str  # what the planner must inline if it cannot be written
    stem: str  # in snake case
    class_name: str
    takes: list[str]
    defaults: dict[str, Expr]
    items: list[Item] = field(default_factory=list)
    is_spread: bool = False  # in the network, its layers are not in a Sequential of their own
    params: list[str] = field(default_factory=list)  # those that the class needs
    uses: list[Env] = field(default_factory=list)  # the parameters in each use
    channels: list[Expr] = field(default_factory=list)  # of its layers, in its parameters

    @property
    def is_function(self) -> bool:
        return (
            bool(self.stem)
            and not self.is_spread
            and all(item.kind in ("call", "repeat") for item in self.items)
        )


def walk(items: Sequence[Item]) -> list[Item]:
    """Return items and those inside them, without the items of classes that they call."""
    return [found for item in items for found in _inside(item)]


def _inside(item: Item) -> Iterator[Item]:
    yield item
    for children in item.children.values():
        yield from walk(children)
