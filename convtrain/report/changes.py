"""What a run's configuration changed against that of ``python train.py`` without overrides."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import ValidationError

from convtrain.config.dotted import ABSENT, value_at
from convtrain.config.schema import Config
from convtrain.run.commands import CONFIGS

# libyaml's are ten times as fast
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FAST_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
WIDTH = 1 << 30  # one line


class Change(NamedTuple):
    """A dotted key with its default and its value, as text; ABSENT is an empty text."""

    key: str
    default: str
    value: str


def changes(config: Mapping[str, object]) -> list[Change]:
    """Return the keys whose values are not the defaults, in the order of the configuration.

    The layers of a network are compared one by one if there are as many as in the default.
    """
    with suppress(ValidationError):  # an older configuration gets the keys that it lacks
        config = Config.model_validate(config).model_dump(by_alias=True)
    return [
        Change(key, _text(default), _text(value))
        for top, content in config.items()
        if top != "resume"
        for key, default, value in _pairs(top, defaults().get(top, ABSENT), content)
        if default != value
    ]


def _pairs(key: str, default: object, value: object) -> Iterator[tuple[str, object, object]]:
    inner: Iterable[object] = ()
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        inner = dict.fromkeys([*default, *value]) if value else ()
    elif isinstance(value, list) and isinstance(default, list) and len(value) == len(default):
        inner = range(len(value) if any(isinstance(item, Mapping) for item in value) else 0)
    for part in inner:
        yield from _pairs(f"{key}.{part}", value_at(default, str(part)), value_at(value, str(part)))
    if not inner:
        yield key, default, value


@cache
def defaults() -> dict[str, object]:
    """Return the shipped configuration without overrides, as :mod:`convtrain.command` composes it.

    Hydra needs 150 ms for that, which is long at the end of a run; a test compares both.
    """
    primary = _read(CONFIGS / "train.yaml")
    listed = primary.pop("defaults")
    assert isinstance(listed, list)
    for item in listed:
        for group, choice in item.items() if isinstance(item, dict) else ():
            if group in Config.model_fields and choice is not None:
                primary[group] = _choice(CONFIGS / group, choice)
    del primary["hydra"]
    return Config.model_validate(_resolved(primary, primary)).model_dump(by_alias=True)


def _resolved(node: object, root: Mapping[str, object]) -> object:
    """Return containers in which ``${key}`` is the value at that key."""
    if isinstance(node, Mapping):
        return {key: _resolved(value, root) for key, value in node.items()}
    if isinstance(node, list):
        return [_resolved(value, root) for value in node]
    is_key = isinstance(node, str) and node.startswith("${")
    return value_at(root, str(node)[2:-1]) if is_key else node


def _choice(folder: Path, name: str) -> dict[str, object]:
    """Return a choice's keys over those of the file that its defaults list names."""
    own = _read(folder / f"{name}.yaml")
    bases = own.pop("defaults", [])
    assert isinstance(bases, list)
    merged: dict[str, object] = {}
    for base in bases:
        merged |= {} if base == "_self_" else _choice(folder, base)
    return merged | own


def _read(path: Path) -> dict[str, object]:
    return yaml.load(path.read_text(encoding="utf-8"), FAST_LOADER) or {}


def _text(value: object) -> str:
    if value is ABSENT:
        return ""
    dumped = yaml.dump(
        value, None, FAST_DUMPER, default_flow_style=True, width=WIDTH, sort_keys=False
    )
    return dumped.removesuffix("...\n").strip()
