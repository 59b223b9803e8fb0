"""Descriptions of the catalogue's layers, for ``python -m convtrain layers``."""

import inspect
import math
from collections.abc import Sequence
from typing import NamedTuple

import yaml

from convtrain.config.signatures import BY_KEYWORD
from convtrain.config.trust import LAYER, is_dotted, load
from convtrain.errors import ConfigError, did_you_mean
from convtrain.layers import BY_NAME, FAMILIES
from convtrain.layers.entry import Entry
from convtrain.network.arguments import signature_of
from convtrain.network.own import own_entry
from convtrain.program import as_typed

EXAMPLES: dict[str, object] = {
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
"""Values shown for arguments that have no default."""


class LayerDescription(NamedTuple):
    """A layer of the catalogue in words."""

    name: str
    family: str
    twin: str  # the function that the functional style calls, with its parameters
    inferred: tuple[str, ...]  # arguments that follow from the input
    arguments: tuple[str, ...]  # that may be declared, with their defaults
    purpose: str
    example: str


def describe_all() -> list[LayerDescription]:
    """Describe every layer, family by family."""
    return [_describe(entry, family) for family, rows in FAMILIES.items() for entry in rows]


def describe_named(name: str, trust: Sequence[str] = ()) -> LayerDescription:
    """Describe one layer, or a user's own by its import path; ConfigError if there is none.

    ``trust`` lists packages of the user's own, which are imported.
    """
    if is_dotted(name):
        entry = own_entry(load("layer", name, trust, LAYER), name)
        return _describe(entry, "your own")._replace(name=name, example=_example(entry, name))
    for described in describe_all():
        if described.name.lower() == name.lower():
            return described
    raise ConfigError(
        f"no layer is called {name}{did_you_mean(name, BY_NAME)}; "
        f"'{as_typed('python -m convtrain layers')}' lists them all"
    )


def _describe(entry: Entry, family: str) -> LayerDescription:
    written = inspect.getdoc(entry.module) if entry.own is None else entry.own.__doc__
    doc = inspect.cleandoc(written or "").splitlines()
    return LayerDescription(
        name=entry.name,
        family=family,
        twin=f"{entry.function_name}({', '.join(inspect.signature(entry.twin).parameters)})",
        inferred=tuple(entry.infer),
        arguments=tuple(_argument(entry, p) for p in signature_of(entry).values()),
        purpose=next((line for line in doc if line and not line.startswith("__init__")), ""),
        example=_example(entry, entry.name),
    )


def _argument(entry: Entry, parameter: inspect.Parameter) -> str:
    name, default = parameter.name, parameter.default
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"**{name}"
    if name in entry.infer:
        return f"{name} (inferred)"
    if name in entry.sublayers:
        return f"{name} (a list of layers)"
    if default is inspect.Parameter.empty:
        return f"{name} (must be given)"
    is_plain = default is None or isinstance(default, bool | int | str)
    is_plain |= isinstance(default, float) and math.isfinite(default)
    return f"{name}={yaml.safe_dump(default).splitlines()[0] if is_plain else '...'}"


def _example(entry: Entry, name: str) -> str:
    """Return the layer's YAML with its required arguments."""
    given = dict[str, object]()
    if entry.sublayers:
        conv = {"Conv2d": {"out_channels": 16, "kernel_size": 3, "padding": 1}}
        given[entry.sublayers[0]] = [conv, "ReLU"]
    else:
        for argument, parameter in signature_of(entry).items():
            is_required = parameter.default is parameter.empty and parameter.kind in BY_KEYWORD
            if is_required and argument not in entry.infer:
                given[argument] = EXAMPLES.get(argument, 1)
    if not given:
        return f"- {name}"
    return yaml.safe_dump([{name: given}], sort_keys=False, default_flow_style=None).rstrip()
