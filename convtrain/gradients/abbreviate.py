"""Shorten long names in the middle, as far as they stay distinct."""

from collections.abc import Sequence

ELLIPSIS = "…"
MAX_TRIED = 12


def abbreviate(names: Sequence[str], width: int) -> list[str]:
    """Return names of at most ``width`` characters, cut where most of them stay distinct."""
    room, best = max(width - len(ELLIPSIS), 2), list[str]()
    heads = range(1, room, max(1, room // MAX_TRIED))
    for head in sorted(heads, key=lambda head: abs(head - room // 2)):
        cut = (f"{name[:head]}{ELLIPSIS}{name[head - room :]}" for name in names)
        short = [n if len(n) <= width else c for n, c in zip(names, cut, strict=True)]
        best = max(best, short, key=lambda texts: len(set(texts)))
    return best
