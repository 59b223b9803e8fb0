"""What Python's logging would refuse of Hydra's logging when a job begins."""

import logging
from collections.abc import Iterator, Mapping
from logging.config import DictConfigurator
from typing import Any

from convtrain.config.messages import Mistake

PARTS = ("formatters", "filters", "handlers")  # in the order in which they are built


def logging_mistakes(hydra: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield the mistakes in ``hydra.job_logging`` and ``hydra.hydra_logging``.

    Each part is built as Python's logging builds it, with no file opened and nothing installed. Its
    classes must have been found to be trusted before.

    Args:
        hydra: Hydra's own node, in plain containers.
    """
    for section in ("hydra_logging", "job_logging"):
        if (node := hydra.get(section)) is not None:
            yield from _section_mistakes(f"hydra.{section}", node)


def _section_mistakes(key: str, node: Any) -> Iterator[Mistake]:
    if not isinstance(node, dict):
        yield Mistake(key, "must hold the keys of Python's logging.config.dictConfig, or null")
        return
    if node.get("version") != 1:
        yield Mistake(f"{key}.version", "must be 1")
        return
    builder = DictConfigurator({**node, **{part: dict(node.get(part) or {}) for part in PARTS}})
    config: Any = builder.config
    for part in PARTS:
        build = getattr(builder, f"configure_{part[:-1]}")
        for name, described in config[part].items():
            try:
                if part == "handlers" and "filename" in described:
                    described = {**described, "delay": True}
                config[part][name] = build(dict(described))
            except Exception as error:  # whatever a class raises on its arguments
                yield Mistake(f"{key}.{part}.{name}", f"cannot be built: {_reason(error)}")
    loggers = {f"loggers.{name}": logger for name, logger in (node.get("loggers") or {}).items()}
    for name, logger in {"root": node.get("root"), **loggers}.items():
        yield from _logger_mistakes(f"{key}.{name}", logger, config["handlers"])


def _logger_mistakes(key: str, logger: Any, handlers: Any) -> Iterator[Mistake]:
    if logger is None:
        return
    if not isinstance(logger, dict):
        yield Mistake(key, "must hold level and handlers")
        return
    for name in logger.get("handlers") or ():
        if name not in handlers:
            yield Mistake(f"{key}.handlers", f"must be of {', '.join(map(str, handlers))}")
    try:
        logging.Logger("tried").setLevel(logger.get("level") or 0)
    except (ValueError, TypeError) as error:
        yield Mistake(f"{key}.level", str(error))


def _reason(error: BaseException) -> str:
    """Return the first line of what lies behind an error of logging's."""
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [""])[0] or type(cause).__name__
