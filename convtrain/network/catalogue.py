"""The catalogue of layers as a reader sees it: rows of a table, and one layer in full."""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import yaml

from convtrain.errors import ConfigError, did_you_mean
from convtrain.layers import BY_NAME, FAMILIES
from convtrain.layers.entry import Entry
from convtrain.network.arguments import signature_of

EXAMPLES: dict[str, Any] = {
    "out_channels": 16,
    "out_features": 10,
    "kernel_size": 3,
    "padding": 1,
    "output_size": 1,
    "hidden_size": 16,
    "num_groups": 4,
    "unflattened_size": [4, 4],
    "dim": 1,
    "dims": [0, 2, 3, 1],
    "index": 0,
    "value": 0.5,
    "p": 0.1,
}
"""A value to show for an argument that has no default."""


@dataclass(frozen=True)
class Described:
    """A layer in words.

    Attributes:
        twin: the function that the functional style calls, with what it asks for.
        inferred: arguments that follow from the input.
        arguments: those that may be declared, with their defaults.
    """

    name: str
    family: str
    twin: str
    inferred: tuple[str, ...]
    arguments: tuple[str, ...]
    purpose: str
    example: str


def describe_all() -> list[Described]:
    """Describe every layer, family by family."""
    return [describe(entry, family) for family, rows in FAMILIES.items() for entry in rows]


def describe_named(name: str) -> Described:
    """Describe one layer.

    Raises:
        ConfigError: there is none of that name.
    """
    found = [d for d in describe_all() if d.name.lower() == name.lower()]
    if not found:
        raise ConfigError(
            f"no layer is called {name}{did_you_mean(name, BY_NAME)}; "
            f"'python -m convtrain layers' lists them all"
        )
    return found[0]


def describe(entry: Entry, family: str) -> Described:
    return Described(
        name=entry.module.__name__,
        family=family,
        twin=f"{entry.function_name}({', '.join(inspect.signature(entry.twin).parameters)})",
        inferred=tuple(entry.infer),
        arguments=tuple(_argument(entry, p) for p in signature_of(entry).values()),
        purpose=_purpose(entry),
        example=_example(entry),
    )


def _purpose(entry: Entry) -> str:
    lines = (inspect.getdoc(entry.module) or "").splitlines()
    return next((line for line in lines if line and not line.startswith("__init__")), "")


def _argument(entry: Entry, parameter: inspect.Parameter) -> str:
    if parameter.name in entry.infer:
        return f"{parameter.name} (inferred)"
    if parameter.name in entry.chains:
        return f"{parameter.name} (a list of layers)"
    if parameter.default is inspect.Parameter.empty:
        return f"{parameter.name} (must be given)"
    shown = yaml.safe_dump(parameter.default) if _plain(parameter.default) else "..."
    return f"{parameter.name}={shown.splitlines()[0]}"


def _plain(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, bool | int | str)
        or (isinstance(value, float) and math.isfinite(value))
    )


def _example(entry: Entry) -> str:
    """Return an entry as it stands in a network's YAML, with what must be given."""
    name = entry.module.__name__
    if entry.chains:
        layers = [{"Conv2d": {"out_channels": 16, "kernel_size": 3, "padding": 1}}, "ReLU"]
        return _as_yaml({name: {entry.chains[0]: layers}})
    given = {
        parameter.name: EXAMPLES.get(parameter.name, 1)
        for parameter in signature_of(entry).values()
        if parameter.default is inspect.Parameter.empty and parameter.name not in entry.infer
    }
    return _as_yaml({name: given}) if given else f"- {name}"


def _as_yaml(item: Any) -> str:
    return yaml.safe_dump([item], sort_keys=False, default_flow_style=None).rstrip()
