"""JSON as the standard has it: what is not finite is null, and named beside it.

Python writes ``Infinity`` and ``NaN``, which other readers of JSON refuse.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

NOT_FINITE = "not_finite"
"""Key of a list with an entry for each such number: its keys, and ``inf``, ``-inf`` or ``nan``."""


def to_json(content: dict[str, Any]) -> str:
    """Return a mapping as text, on several lines."""
    named = [[*keys, str(value)] for keys, value in _not_finite(content, [])]
    whole = {**_finite(content), NOT_FINITE: named} if named else content
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def from_json(text: str) -> Any:
    """Return what :func:`to_json` was given.

    Raises:
        ValueError: it is no JSON.
    """
    content = json.loads(text)
    if isinstance(content, dict):
        for *path, last, value in content.pop(NOT_FINITE, []):
            place: Any = content
            for key in path:
                place = place[key]
            place[last] = float(value)
    return content


def _not_finite(value: Any, keys: list[Any]) -> Iterator[tuple[list[Any], float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield keys, value
    items = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list | tuple) else items:
        yield from _not_finite(item, [*keys, key])


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
