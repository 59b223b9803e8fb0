"""The one table of keys that decides whether two configurations are the same training.

It compares what the user asked for, which ``config.yaml`` holds. The devices and the strategy that
the launcher found are in ``provenance.json``.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from convtrain.config.dotted import is_below, leaves

if TYPE_CHECKING:
    from convtrain.config.schema import Config

MAY_CHANGE = "may change when the run is resumed"
NEUTRAL = "changes nothing about what is trained"

ROLES = {
    "resume": NEUTRAL,
    "sweep": NEUTRAL,
    "trust": NEUTRAL,
    "metrics": MAY_CHANGE,
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
    "callbacks.report": NEUTRAL,
    "augment.workers": NEUTRAL,
    "data.root": MAY_CHANGE,
    "data.file": MAY_CHANGE,
    "data.train.root": MAY_CHANGE,
    "data.val.root": MAY_CHANGE,
    "data.test.root": MAY_CHANGE,
    "data.download": NEUTRAL,
    "data.allow_change": NEUTRAL,
    "data.memory_gib": NEUTRAL,
    "data.read_workers": NEUTRAL,
    "data.cache_dir": NEUTRAL,
    "data.cache_gib": NEUTRAL,
    "data.decode": NEUTRAL,
}
"""Keys outside a run's identity, with all keys below them. All may change on resume."""

SYNONYMS: dict[str, dict[object, str]] = {
    "trainer.precision": {32: "32-true", 64: "64-true"},
    "trainer.strategy": {"ddp": "auto"},  # auto becomes ddp with several devices
}

Configuration: TypeAlias = "Config | Mapping[str, object]"


def role_of(key: str) -> str | None:
    """Return the role of a dotted key, or None if it is part of a run's identity."""
    return next((role for above, role in ROLES.items() if is_below(key, above)), None)


def identity(config: Configuration, *, resumed: bool = False) -> dict[str, str]:
    """Return the identity of a configuration: JSON text by dotted key.

    Keys that an older ``config.yaml`` lacks have the schema's default. ``resumed`` also leaves out
    the keys that may change when a run is resumed.
    """
    left_out = (NEUTRAL, MAY_CHANGE) if resumed else (NEUTRAL,)
    return {
        key: json.dumps(_canonical(key, value), sort_keys=True, default=str)
        for key, value in leaves(_plain(config))
        if role_of(key) not in left_out
    }


def differing(first: Configuration, second: Configuration, *, resumed: bool = False) -> list[str]:
    """Return the dotted keys that make two configurations different trainings."""
    a, b = identity(first, resumed=resumed), identity(second, resumed=resumed)
    return [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]


def digest(config: Configuration) -> str:
    """Return a short hash of a configuration's identity."""
    return hashed(identity(config))


def hashed(value: object) -> str:
    """Return the first 10 hexadecimal digits of the SHA-256 hash of plain containers."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _plain(config: Configuration) -> Mapping[str, object]:
    from pydantic import ValidationError

    from convtrain.config.schema import Config

    try:
        valid = config if isinstance(config, Config) else Config.model_validate(config)
    except ValidationError:  # written by another version: compared as it is
        assert isinstance(config, Mapping)
        return config
    return valid.model_dump(by_alias=True)


def _canonical(key: str, value: object) -> object:
    try:
        return SYNONYMS.get(key, {}).get(value, value)
    except TypeError:  # a list or a mapping has no synonym
        return value
