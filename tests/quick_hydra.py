"""What Hydra and OmegaConf do when they compose, in less than half of the time.

Tests compose more than a thousand times. Most of that time goes into copies of nodes, which
``deepcopy`` makes attribute by attribute, and into maps for interpolations in defaults lists, which
have none. tests/command/test_quick_hydra.py composes both ways and compares. Processes that tests
start compose as they always do.
"""

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import hydra.version
import omegaconf
import pytest
from hydra._internal import defaults_list
from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.base import Box
from omegaconf.nodes import AnyNode, BooleanNode, FloatNode, IntegerNode, StringNode

Ways = Iterable[tuple[Any, str, Any]]  # an owner, the name of its attribute, and the value


@contextmanager
def composing(ways: Ways) -> Iterator[None]:
    """Replace functions of Hydra and OmegaConf, until the end of the block."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, way in ways:
            patch.setattr(owner, name, way)
        yield


def _each_file_once(load: Any) -> Any:
    """Some 25 YAML files are parsed for a composition."""
    parsed = dict[tuple[str, int, int], Any]()

    def load_once(file: Any) -> Any:
        if not hasattr(file, "name"):
            return load(file)
        path = Path(file.name).resolve()
        key = (str(path), path.stat().st_mtime_ns, path.stat().st_size)
        if key not in parsed:
            parsed[key] = load(file)
        return copy.deepcopy(parsed[key])

    return load_once


def _only_where_used(make_map: Any) -> Any:
    """The map is made again for every choice, and only a default with ``${...}`` reads it."""

    def make(overrides: Any, defaults: Sequence[Any], self_added: bool) -> Any:
        used = any(default.is_interpolation() for default in defaults)
        return make_map(overrides, defaults, self_added) if used else OmegaConf.create()

    return make


def _copied_value(node: Any, memo: object) -> Any:
    new = object.__new__(type(node))
    new.__dict__.update(node.__dict__, _metadata=_copied_metadata(node), _flags_cache=None)
    return new


def _copied_container(container: Any, memo: object) -> Any:
    new = _copied_value(container, memo)
    new.__dict__["_flags_cache"] = copy.copy(container.__dict__["_flags_cache"])
    content = container.__dict__["_content"]  # or None, or an interpolation
    if isinstance(content, dict):
        new.__dict__["_content"] = {key: node.__deepcopy__(memo) for key, node in content.items()}
    elif isinstance(content, list):
        new.__dict__["_content"] = [node.__deepcopy__(memo) for node in content]
    for node in _children(new):
        node.__dict__["_parent"] = new
    return new


def _copied_metadata(node: Any) -> Any:
    metadata = node.__dict__["_metadata"]
    new = object.__new__(type(metadata))
    flags, cached = metadata.flags, metadata.resolver_cache
    new.__dict__.update(metadata.__dict__, flags=None if flags is None else flags.copy())
    new.resolver_cache = copy.deepcopy(cached) if cached else cached.copy()
    return new


def _children(node: Any) -> Collection[Any]:
    content = node.__dict__.get("_content")
    if isinstance(content, dict):
        return content.values()
    if isinstance(content, list):
        return content
    return (content,) if isinstance(content, Node) else ()


def _re_parent(container: Any) -> None:
    """After each merge, every node below learns again what it hangs in, and forgets its flags."""
    left = [container]
    while left:
        parent = left.pop()
        for node in _children(parent):
            node.__dict__["_parent"] = parent
            node.__dict__["_flags_cache"] = None
            if isinstance(node, Box):
                left.append(node)


_parse = cache(omegaconf.base.parse)  # the same few interpolations, into trees that are only read

QUICK_WAYS: Ways = [
    (OmegaConf, "load", staticmethod(_each_file_once(OmegaConf.load))),
    (omegaconf.base, "parse", _parse),
    (omegaconf._utils, "parse", _parse),
    (
        defaults_list,
        "_create_interpolation_map",
        _only_where_used(defaults_list._create_interpolation_map),
    ),
    (hydra.version, "_get_version", cache(hydra.version._get_version)),
    (Box, "_re_parent", _re_parent),
    *(
        (kind, "__deepcopy__", _copied_value)
        for kind in (AnyNode, BooleanNode, FloatNode, IntegerNode, StringNode)
    ),
    *((kind, "__deepcopy__", _copied_container) for kind in (DictConfig, ListConfig)),
]
THEIR_WAYS: Ways = [(owner, name, vars(owner)[name]) for owner, name, _ in QUICK_WAYS]
