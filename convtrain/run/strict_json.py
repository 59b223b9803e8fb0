"""JSON without Python's ``Infinity`` and ``NaN``, which other readers of JSON refuse.

A non-finite number becomes null, and a list beside the content keeps its value.
"""

import json
import math
from collections.abc import Iterator, Mapping

NOT_FINITE = "not_finite"
"""Key of the list; an entry holds the keys that lead to the number, then its value as text."""


def to_json(content: Mapping[str, object]) -> str:
    """Return a mapping as indented JSON."""
    listed = [[*keys, str(value)] for keys, value in _not_finite(content)]
    finite = {key: _with_null(value) for key, value in content.items()}
    whole = {**finite, NOT_FINITE: listed} if listed else finite
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def from_json(text: str) -> object:
    """Parse the text of ``to_json``; ValueError, LookupError or TypeError if it is damaged."""
    content = json.loads(text)
    if isinstance(content, dict):
        for *path, last, value in content.pop(NOT_FINITE, []):
            node = content
            for key in path:
                node = node[key]
            node[last] = float(value)
    return content


def _not_finite(value: object, *keys: object) -> Iterator[tuple[tuple[object, ...], float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield keys, value
    items = value.items() if isinstance(value, Mapping) else ()
    for key, item in enumerate(value) if isinstance(value, list | tuple) else items:
        yield from _not_finite(item, *keys, key)


def _with_null(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _with_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
