"""Lay out statements as ``ruff format`` does, in lines of at most 100 characters."""

from collections.abc import Iterator

WIDTH = 100
_OPEN, _CLOSE = "([{", ")]}"


def fit(text: str, indent: int = 0, comment: str = "") -> list[str]:
    """Return a statement's lines; a comment follows it where there is room.

    A statement that is too long is split at its last brackets: the arguments move to a line of
    their own, or each to its own line.
    """
    line = " " * indent + text
    if len(line) <= WIDTH:
        behind = f"{line}  # {comment}" if comment else line
        return [behind if len(behind) <= WIDTH else line]
    if (found := _last_brackets(text)) is None:
        return [line]
    start, end = found
    head, body, tail = text[: start + 1], text[start + 1 : end], text[end:]
    whole = " " * (indent + 4) + body
    if len(whole) <= WIDTH:
        inside = [whole]
    else:
        parts = list(_split(body, ", "))
        if len(parts) > 1:
            inside = [line for part in parts for line in fit(f"{part},", indent + 4)]
        else:
            inside = []
            for index, part in enumerate(_split(body, " for ")):
                inside += fit(f"for {part}" if index else part, indent + 4)
            if len(inside) == 1 or body.startswith("*"):
                inside = fit(body, indent + 4)
    return [" " * indent + head, *inside, " " * indent + tail]


def exploded(head: str, items: list[str], tail: str, indent: int) -> list[str]:
    """Return a call with each argument on its own line."""
    inside = [line for item in items for line in fit(f"{item},", indent + 4)]
    return [" " * indent + head, *inside, " " * indent + tail]


def _last_brackets(text: str) -> tuple[int, int] | None:
    """Return where the last outermost brackets open and close."""
    depth, start, found = 0, 0, None
    for place, character in _outside_of_texts(text):
        if character in _OPEN:
            start = place if depth == 0 else start
            depth += 1
        elif character in _CLOSE:
            depth -= 1
            if depth == 0 and place > start + 1:
                found = (start, place)
    return found


def _split(text: str, by: str) -> Iterator[str]:
    depth, start = 0, 0
    for place, character in _outside_of_texts(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0 and text.startswith(by, place) and place >= start:
            yield text[start:place]
            start = place + len(by)
    yield text[start:]


def _outside_of_texts(text: str) -> Iterator[tuple[int, str]]:
    quoted = escaped = False
    for place, character in enumerate(text):
        if character == '"' and not escaped:
            quoted = not quoted
        elif not quoted:
            yield place, character
        escaped = character == "\\" and not escaped
