"""Refuse small YAML files whose aliases expand to a huge configuration."""

import math
from collections.abc import Iterable
from pathlib import Path

import yaml

from convtrain.errors import ConfigError

MAX_VALUES = 100_000


def refuse_explosions(folders: Iterable[Path]) -> None:
    """Call :func:`refuse_explosion` on every YAML file below the folders."""
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            refuse_explosion(path)


def refuse_explosion(path: Path) -> None:
    """Raise ConfigError if a file's aliases expand to more than ``MAX_VALUES`` values."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return  # reported where the file is read
    if "&" not in text or "*" not in text:
        return
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        size = 0.0 if root is None else _expanded_size(root, {})
    except yaml.YAMLError:
        return  # reported where the file is read
    except RecursionError as error:
        raise ConfigError(f"{path}: its values are nested too deeply") from error
    if size > MAX_VALUES:
        times = "without end" if math.isinf(size) else f"into {size:.3g} values"
        raise ConfigError(f"{path}: its anchors unfold {times}; at most {MAX_VALUES:,} are allowed")


def _expanded_size(node: yaml.Node, known: dict[int, float]) -> float:
    """Count the values below a node with every alias expanded; a cycle is infinite."""
    if id(node) not in known:
        known[id(node)] = math.inf  # found here by a node that contains itself
        below: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            below = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        known[id(node)] = 1 + sum(_expanded_size(part, known) for part in below)
    return known[id(node)]
