"""Dotted keys, and the values at them in nested containers."""

from collections.abc import Iterator, Mapping

ABSENT = object()  # the value of a key that does not exist


def value_at(node: object, key: str, default: object = ABSENT) -> object:
    """Return the value at a dotted key, or the default; an integer part indexes a list."""
    for part in key.split("."):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            return default
    return node


def walk(node: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the path and the value of every leaf of mappings and lists; an empty one is a leaf."""
    if isinstance(node, Mapping | list | tuple) and node:
        for part, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from walk(value, (*path, str(part)))
    else:
        yield path, node


def leaves(node: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted key and the value of every leaf of mappings; a list is a leaf."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def is_below(key: str, above: str) -> bool:
    """Tell whether a dotted key equals another one or is below it."""
    return f"{key}.".startswith(f"{above}.")
