"""A mistake in a configuration, and the line that reports it."""

import re
from collections.abc import Callable
from typing import NamedTuple

from convtrain.config.dotted import ABSENT, value_at
from convtrain.errors import one_line

Origin = Callable[[str], str]  # maps a dotted key to the file that set it, or to TYPED

MISSING = "is missing"
TYPED = "command line"  # the origin of an override
MAX_CHARACTERS = 120  # longest value that is shown


class Mistake(NamedTuple):
    key: str
    text: str  # what is allowed, and what to do


def line(mistake: Mistake, plain: object, origin: Origin | None = None) -> str:
    """Return a mistake's line: key, value, text and origin; without a key, the text alone."""
    key, text = mistake
    if not key:
        return one_line(text)
    value = value_at(plain, key)
    shown = "" if value is ABSENT else f"={brief(value)}"
    source = f" [set in: {origin(key)}]" if origin else ""
    return one_line(f"{key}{shown}: {text}{source}")


def brief(value: object) -> str:
    """Return a value in YAML's flow style, shortened to ``MAX_CHARACTERS``."""
    text = as_yaml(value)
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 3]}..."


def as_yaml(value: object, depth: int = 0) -> str:
    """Return a value in YAML's flow style, without the parts that are too long to be shown."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return re.sub("(inf|nan)", r".\1", str(value))
    if not isinstance(value, dict | list):
        return str(value)[: MAX_CHARACTERS + 1]
    if depth > 3:
        return "..."
    if isinstance(value, list):
        return f"[{', '.join(as_yaml(item, depth + 1) for item in value[:MAX_CHARACTERS])}]"
    pairs = list(value.items())[:MAX_CHARACTERS]
    return f"{{{', '.join(f'{key}: {as_yaml(inner, depth + 1)}' for key, inner in pairs)}}}"
