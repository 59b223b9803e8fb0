"""Checks of Hydra's logging nodes: the classes and files that they name, and Python's errors."""

import logging
from collections.abc import Iterator
from logging.config import DictConfigurator

from convtrain.command.hydra_node.paths import leaves_folder
from convtrain.config.dotted import value_at
from convtrain.config.mistakes import Mistake
from convtrain.errors import first_line

OUTPUT_DIR = "/<the run's directory>"  # its placeholder until a job starts
LOGGING_CLASSES = {
    "formatters": ("logging.Formatter", "colorlog.ColoredFormatter"),
    "filters": ("logging.Filter",),
    "handlers": (
        "logging.StreamHandler", "logging.FileHandler", "logging.NullHandler",
        "logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler",
        "colorlog.StreamHandler",
    ),
}  # fmt: skip
"""The classes that each part may name. Python's logging builds the parts in this order."""

STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def logging_leaf_mistakes(hydra: object, parts: tuple[str, ...], value: object) -> Iterator[str]:
    """Yield why a leaf of Hydra's logging would run code, or write outside the run's directory."""
    text, leaf = value if isinstance(value, str) else "", parts[-1]
    if "." in parts:
        yield "'.' would set attributes of an object; give its arguments"
    elif leaf in ("class", "()"):
        known = LOGGING_CLASSES.get(parts[2], ()) if len(parts) > 2 else ()
        if len(parts) != 5 or text not in known:
            yield f"must be one of {', '.join(known)}" if known else "not allowed here"
    elif text.startswith(("ext://", "cfg://")):
        if text not in STREAMS:
            yield f"must be one of {', '.join(STREAMS)}"
    elif leaf == "filename":
        if not _is_in_run(hydra, text, early=parts[1] == "hydra_logging"):
            yield "must be in the run's directory: ${hydra.runtime.output_dir}/NAME.log"
    elif leaf == "style" and value not in ("%", "$"):
        yield "must be % or $: a format of style { reaches into objects"
    elif "${" in text:
        yield "must not hold the text of an interpolation"


def _is_in_run(hydra: object, text: str, early: bool) -> bool:
    """Tell whether a file is in the run's directory; ``early`` is before Hydra has made it."""
    if (name := str(value_at(hydra, "job.name", None))) in text and leaves_folder(name):
        return True  # hydra.job.name is reported by itself
    folders = [] if early else [OUTPUT_DIR]
    folders += [str(value_at(hydra, "run.dir", None)), str(value_at(hydra, "sweep.dir", None))]
    inside = [text.removeprefix(f"{f}/") for f in folders if text.startswith(f"{f}/")]
    return bool(inside) and not leaves_folder(inside[0])


def logging_mistakes(hydra: dict[str, object]) -> Iterator[Mistake]:
    """Yield the mistakes in ``hydra.job_logging`` and ``hydra.hydra_logging``.

    Python's logging builds each part, but opens no file and installs nothing. The classes must be
    known to be trusted.
    """
    for section in ("hydra_logging", "job_logging"):
        key, node = f"hydra.{section}", hydra.get(section)
        if node is None:
            continue
        if not isinstance(node, dict):
            text = "must hold the keys of Python's logging.config.dictConfig, or null"
            yield Mistake(key, text)
        elif node.get("version") != 1:
            yield Mistake(f"{key}.version", "must be 1")
        else:
            yield from _section_mistakes(key, node)


def _section_mistakes(key: str, node: dict[str, object]) -> Iterator[Mistake]:
    parts: dict[str, dict[str, object]] = {
        part: dict(node.get(part) or {})  # type: ignore[call-overload]
        for part in LOGGING_CLASSES
    }
    builder = DictConfigurator({**node, **parts})
    built = builder.config
    for part, described in parts.items():
        build = getattr(builder, f"configure_{part[:-1]}")
        for name, arguments in described.items():
            try:
                opens = part == "handlers" and "filename" in arguments  # type: ignore[operator]
                built[part][name] = build({**arguments, **({"delay": True} if opens else {})})  # type: ignore[dict-item]
            except Exception as error:  # a class may raise anything on its arguments
                reason = first_line(error.__cause__ or error)
                yield Mistake(f"{key}.{part}.{name}", f"cannot be built: {reason}")
    named = node.get("loggers") or {}
    loggers = {f"loggers.{name}": logger or {} for name, logger in named.items()}  # type: ignore[attr-defined]
    for name, logger in {"root": node.get("root") or {}, **loggers}.items():
        if not isinstance(logger, dict):
            yield Mistake(f"{key}.{name}", "must hold level and handlers")
            continue
        handlers = parts["handlers"]
        if any(handler not in handlers for handler in logger.get("handlers") or ()):
            yield Mistake(f"{key}.{name}.handlers", f"must be of {', '.join(map(str, handlers))}")
        try:
            logging.Logger("tried").setLevel(logger.get("level") or 0)
        except (ValueError, TypeError) as error:
            yield Mistake(f"{key}.{name}.level", str(error))
