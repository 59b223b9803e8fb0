"""Hydra's nodes for logging: the classes and files they may name, and what Python would refuse."""

import logging
from collections.abc import Iterator, Mapping
from logging.config import DictConfigurator
from typing import Any

from convtrain.command.hydra_paths import leaves_folder
from convtrain.config.messages import Mistake
from convtrain.errors import first_line

OUTPUT_DIR = "/<the run's directory>"  # stands for it until a job begins
LOGGING_CLASSES = {
    "handlers": (
        "logging.StreamHandler", "logging.FileHandler", "logging.NullHandler",
        "logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler",
        "colorlog.StreamHandler",
    ),
    "formatters": ("logging.Formatter", "colorlog.ColoredFormatter"),
    "filters": ("logging.Filter",),
}  # fmt: skip
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")

PARTS = ("formatters", "filters", "handlers")  # in the order in which they are built


def foreign_logging(hydra: dict[str, Any], parts: tuple[str, ...], value: Any) -> Iterator[Mistake]:
    """Yield what a value of Hydra's logging would run, or write outside of the run's directory.

    Args:
        hydra: the resolved node, in plain containers.
        parts: the keys that lead to the value, from ``hydra`` on.
        value: a leaf.
    """
    key, text = ".".join(parts), value if isinstance(value, str) else ""
    leaf, section = parts[-1], parts[2] if len(parts) > 2 else ""
    if "." in parts:
        yield Mistake(key, "'.' would set attributes of an object; give its arguments")
    elif leaf in ("class", "()"):
        known = LOGGING_CLASSES.get(section, ())
        if len(parts) != 5 or text not in known:
            allowed = f"must be one of {', '.join(known)}" if known else "not allowed here"
            yield Mistake(key, allowed)
    elif text.startswith(("ext://", "cfg://")):
        if text not in STREAMS:
            yield Mistake(key, f"must be one of {', '.join(STREAMS)}")
    elif leaf == "filename":
        if not _is_in_run(hydra, text, early=parts[1] == "hydra_logging"):
            yield Mistake(
                key, "must lie in the run's directory: ${hydra.runtime.output_dir}/NAME.log"
            )
    elif leaf == "style" and value not in ("%", "$"):
        yield Mistake(key, "must be % or $: a format of style { reaches into objects")
    elif "${" in text:
        yield Mistake(key, "must not hold the text of an interpolation")


def _is_in_run(hydra: dict[str, Any], text: str, early: bool) -> bool:
    """Tell whether a file is in the run's directory; early, where Hydra has not made that yet."""
    if (name := str(hydra["job"].get("name"))) in text and leaves_folder(name):
        return True  # hydra.job.name is reported by itself
    folders = [] if early else [OUTPUT_DIR]
    folders += [str(hydra["run"].get("dir")), str(hydra["sweep"].get("dir"))]
    inside = [
        text.removeprefix(f"{folder}/") for folder in folders if text.startswith(f"{folder}/")
    ]
    return bool(inside) and not leaves_folder(inside[0])


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
                reason = first_line(error.__cause__ or error)
                yield Mistake(f"{key}.{part}.{name}", f"cannot be built: {reason}")
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
