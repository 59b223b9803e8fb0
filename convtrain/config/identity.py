"""Whether two configurations are the same training: one table of keys, asked by everybody.

It is applied to configurations as they were asked for, which is what ``config.yaml`` holds. What
the launcher made of one (the devices that it found, the strategy) is in ``provenance.json``.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from convtrain.config.schema import Config

MAY_CHANGE = "may change when the run is resumed"
NEUTRAL = "changes nothing about what is trained"

ROLES = {
    "resume": NEUTRAL,
    "sweep": NEUTRAL,
    "trust": NEUTRAL,
    "trainer.max_epochs": MAY_CHANGE,
    "trainer.max_steps": MAY_CHANGE,
    "trainer.accelerator": MAY_CHANGE,
    "trainer.devices": MAY_CHANGE,
    "trainer.num_nodes": MAY_CHANGE,
    "trainer.threads": MAY_CHANGE,
    "trainer.log_every_n_steps": MAY_CHANGE,
    "callbacks.checkpoint.every_n_epochs": MAY_CHANGE,
    "callbacks.checkpoint.every_n_steps": MAY_CHANGE,
    "callbacks.checkpoint.every_n_minutes": MAY_CHANGE,
    "callbacks.checkpoint.keep_last": MAY_CHANGE,
    "callbacks.progress_bar": NEUTRAL,
    "callbacks.walkthrough": NEUTRAL,
    "data.root": MAY_CHANGE,
    "data.download": NEUTRAL,
    "data.allow_change": NEUTRAL,
    "data.memory_gib": NEUTRAL,
    "data.cache_dir": NEUTRAL,
    "data.cache_gib": NEUTRAL,
}
"""Keys, with all below them, that are not part of what makes a run the run that it is.

Every other key is: another value of it is another run. Both kinds may be typed on resume.
"""

SYNONYMS: dict[str, dict[Any, Any]] = {
    "trainer.precision": {32: "32-true", 64: "64-true"},
    "trainer.strategy": {"ddp": "auto"},  # what auto stands for with several devices
}

Configuration = Config | Mapping[str, Any]


def role_of(key: str) -> str | None:
    """Return the role of a dotted key, or None where it is part of a run's identity."""
    parts = key.split(".")
    above = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((ROLES[prefix] for prefix in above if prefix in ROLES), None)


def identity(config: Configuration, *, resumed: bool = False) -> dict[str, str]:
    """Return what makes a configuration the training that it is: JSON text by dotted key.

    Args:
        config: validated, or plain containers as ``config.yaml`` holds them. Keys that an older
            file lacks have the schema's default.
        resumed: leave out what may change when a run is resumed as well.
    """
    left_out = (NEUTRAL, MAY_CHANGE) if resumed else (NEUTRAL,)
    return {
        key: json.dumps(_canonical(key, value), sort_keys=True, default=str)
        for key, value in leaves(_plain(config))
        if role_of(key) not in left_out
    }


def differing(first: Configuration, second: Configuration, *, resumed: bool = False) -> list[str]:
    """Return the dotted keys by which two configurations are different trainings."""
    a, b = identity(first, resumed=resumed), identity(second, resumed=resumed)
    return [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]


def digest(config: Configuration) -> str:
    """Return a short hash of a configuration's identity."""
    return hashed(identity(config))


def hashed(value: Any) -> str:
    """Return a short hash of plain containers."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of every leaf of nested mappings; a list is a leaf."""
    if not isinstance(node, Mapping) or (key and not node):
        yield key, node
        return
    for name, value in node.items():
        yield from leaves(value, f"{key}.{name}" if key else str(name))


def _plain(config: Configuration) -> Mapping[str, Any]:
    if isinstance(config, Config):
        return config.model_dump(by_alias=True)
    try:
        return Config.model_validate(config).model_dump(by_alias=True)
    except ValidationError:  # of another version; it is compared as it is
        return config


def _canonical(key: str, value: Any) -> Any:
    try:
        return SYNONYMS.get(key, {}).get(value, value)
    except TypeError:  # a list or a mapping has no synonym
        return value
