"""Long names in little space: folded in the middle, where that keeps them apart."""

from collections.abc import Sequence

FOLD = "…"
PLACES = 12  # tried for the fold


def abbreviate(names: Sequence[str], width: int) -> list[str]:
    """Return names of at most ``width`` characters, as distinct as a fold in one place allows."""
    best: list[str] = []
    room = max(width - len(FOLD), 2)
    places = range(1, room, max(1, room // PLACES))
    for head in sorted(places, key=lambda place: abs(place - room // 2)):
        folded = [_fold(name, width, head, room - head) for name in names]
        if len(set(folded)) > len(set(best)):
            best = folded
        if len(set(best)) == len(set(names)):
            break
    return best


def narrowest(names: Sequence[str], widths: Sequence[int]) -> tuple[int, list[str]]:
    """Return the first width that keeps all names apart, or the last, and the names folded."""
    for width in widths:
        folded = abbreviate(names, width)
        if len(set(folded)) == len(set(names)):
            break
    return width, folded


def _fold(name: str, width: int, head: int, tail: int) -> str:
    return name if len(name) <= width else f"{name[:head]}{FOLD}{name[-tail:]}"
