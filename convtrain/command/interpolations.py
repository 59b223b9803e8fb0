"""A composed configuration as plain containers, with every interpolation resolved or reported."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.config.messages import MISSING, Mistake
from convtrain.errors import ConfigError, first_line

MAX_DEPTH = 40
MAX_VALUES = 20_000


def to_plain(config: DictConfig) -> tuple[dict[str, Any], list[Mistake]]:
    """Resolve a configuration; what cannot be resolved, or is ``???``, is left out and reported.

    Raises:
        ConfigError: it is too deep or too large, as when interpolations unfold without end.
    """
    reader = _Reader()
    plain = reader.read(config, "", 0)
    assert isinstance(plain, dict)
    return plain, reader.mistakes


class _Reader:
    """Counts what it has read, for an interpolation may stand for a whole section, many times."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._values = 0

    def read(self, node: Any, key: str, depth: int) -> Any:
        self._values += 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"{_shortened(key)}: values lie more than {MAX_DEPTH} deep")
        if self._values > MAX_VALUES:
            raise ConfigError(
                f"{_shortened(key)}: its interpolations unfold into more than {MAX_VALUES:,} values"
            )
        if isinstance(node, DictConfig):
            return {k: self.read(v, k_, depth + 1) for k, k_, v in self._items(node, key)}
        if isinstance(node, ListConfig):
            return [self.read(v, k_, depth + 1) for _, k_, v in self._items(node, key)]
        return node

    def _items(self, node: DictConfig | ListConfig, key: str) -> Iterator[tuple[Any, str, Any]]:
        """Yield name, dotted key and value of what a node holds and can be resolved."""
        names: Any = list(node.keys()) if isinstance(node, DictConfig) else range(len(node))
        for name in names:
            inner = f"{key}.{name}" if key else str(name)
            if isinstance(node, DictConfig) and not isinstance(name, str):
                text = "a key must be text; put it in quotes in a YAML file"
                self.mistakes.append(Mistake(inner, text))
                continue
            if OmegaConf.is_missing(node, name):
                self.mistakes.append(Mistake(inner, MISSING))
                continue
            try:
                yield name, inner, node[name]
            except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
                self.mistakes.append(Mistake(inner, first_line(error)))


def _shortened(key: str) -> str:
    return ".".join(key.split(".")[:3])
