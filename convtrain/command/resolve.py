"""Convert a composed configuration to plain containers, with every interpolation resolved."""

from collections.abc import Iterator

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.config.mistakes import MISSING, Mistake
from convtrain.errors import ConfigError, first_line

MAX_DEPTH = 40
MAX_VALUES = 20_000

Plain = dict[str, object]


def to_plain(config: DictConfig) -> tuple[Plain, list[Mistake]]:
    """Resolve a configuration; leave out and report values that are ``???`` or cannot be resolved.

    Raises:
        ConfigError: it is too deep or too large, as when interpolations unfold without end.
    """
    mistakes: list[Mistake] = []
    count = 0  # an interpolation may expand to a whole section, many times

    def read(node: object, key: str, depth: int) -> object:
        nonlocal count
        count += 1
        shortened = ".".join(key.split(".")[:3])
        if depth > MAX_DEPTH:
            raise ConfigError(f"{shortened}: values are nested more than {MAX_DEPTH} deep")
        if count > MAX_VALUES:
            raise ConfigError(
                f"{shortened}: its interpolations unfold into more than {MAX_VALUES:,} values"
            )
        if isinstance(node, DictConfig):
            return {k: read(v, k_, depth + 1) for k, k_, v in items(node, key)}
        if isinstance(node, ListConfig):
            return [read(v, k_, depth + 1) for _, k_, v in items(node, key)]
        return node

    def items(node: DictConfig | ListConfig, key: str) -> Iterator[tuple[str, str, object]]:
        is_list = isinstance(node, ListConfig)
        for name in range(len(node)) if is_list else list(node.keys()):
            inner = f"{key}.{name}" if key else str(name)
            try:
                if not is_list and not isinstance(name, str):
                    text = "a key must be text; put it in quotes in a YAML file"
                elif OmegaConf.is_missing(node, name):
                    text = MISSING
                else:
                    yield str(name), inner, node[name]
                    continue
            except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
                text = first_line(error)
            mistakes.append(Mistake(inner, text))

    plain = read(config, "", 0)
    assert isinstance(plain, dict)
    return plain, mistakes
