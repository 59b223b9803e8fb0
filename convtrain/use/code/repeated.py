"""Turn residuals that are alike into a block, as people do who write a network by hand.

``resnet8`` declares three residuals one after another, which differ in their numbers, and the first
in its shortcut. The file has one class for them.
"""

from collections.abc import Iterator, Mapping, Sequence

from convtrain.layers import BY_NAME
from convtrain.use.code.declared import entries, skeleton

Path = tuple[str | int, ...]
RESIDUAL, SHORTCUT = "Residual", "shortcut"
DEFAULTS = {"stride": 1, "groups": 1, "dilation": 1, "padding": 0}


def with_block(
    layers: object, blocks: Mapping[str, object]
) -> tuple[object, Mapping[str, object], str | None]:
    """Return the layers and the blocks with one block more, and its name; None if there is none."""
    declared = list(entries(layers)) if isinstance(layers, Sequence) else []
    chosen = [place for place, (kind, _, _) in enumerate(declared) if kind == RESIDUAL]
    bodies = [declared[place][1]["body"] for place in chosen]
    shortcuts = [declared[place][1].get(SHORTCUT) or [] for place in chosen]
    alike = len({skeleton(body) for body in bodies}) == 1
    alike = alike and len({skeleton(each) for each in shortcuts if each}) <= 1
    if len(chosen) < 2 or not alike:
        return layers, blocks, None
    names, given, body = _parameters(bodies, shortcuts)
    takes: dict[str, object] = {name: DEFAULTS.get(name, "required") for name in names}
    residual: dict[str, object] = {"body": body}
    if any(shortcuts):
        takes[SHORTCUT], residual[SHORTCUT] = [], f"${SHORTCUT}"
    block = next(n for n in ("residual", "residual_block", "residual_layer") if n not in blocks)
    after = {str(_entry(layers, place + 1)) for place in chosen}
    activation = after.pop() if len(after) == 1 else ""
    inside: list[object] = [{RESIDUAL: residual}]
    joined = activation in BY_NAME and not BY_NAME[activation].sublayers
    if joined:
        inside.append(activation)
    written: list[object] = []
    for place in range(len(declared)):
        if place in chosen:
            which = chosen.index(place)
            use: dict[str, object] = {name: values[which] for name, values in given.items()}
            if any(shortcuts):
                use[SHORTCUT] = shortcuts[which]
            label = declared[place][2]
            written.append({block: use, **({"name": label} if label else {})})
        elif not (joined and place - 1 in chosen):
            written.append(_entry(layers, place))
    return written, {**blocks, block: {"takes": takes, "layers": inside}}, block


def _entry(layers: object, place: int) -> object:
    assert isinstance(layers, Sequence)
    return layers[place] if place < len(layers) else None


def _parameters(
    bodies: Sequence[object], shortcuts: Sequence[object]
) -> tuple[list[str], dict[str, list[object]], object]:
    """Return the names of the numbers that differ, their values, and the body with the names."""
    given: dict[str, list[object]] = {}
    renamed: dict[Path, str] = {}
    for path in dict(_numbers(bodies[0])):
        values = [dict(_numbers(body))[path] for body in bodies]
        if all(value == values[0] for value in values):
            continue
        known = next((name for name, each in given.items() if each == values), None)
        if known is None:
            word = next(str(part) for part in reversed(path) if isinstance(part, str))
            known, number = word, 1
            while known in given:
                number += 1
                known = f"{word}{number}"
            given[known] = values
        renamed[path] = f"${known}"
    return list(given), given, _replaced(bodies[0], renamed)


def _numbers(raw: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _numbers(value, (*path, str(key)))
    elif isinstance(raw, Sequence) and not isinstance(raw, str):
        for place, value in enumerate(raw):
            yield from _numbers(value, (*path, place))
    elif isinstance(raw, int | float) and not isinstance(raw, bool):
        yield path, raw


def _replaced(raw: object, names: Mapping[Path, str], path: Path = ()) -> object:
    if path in names:
        return names[path]
    if isinstance(raw, Mapping):
        return {key: _replaced(value, names, (*path, str(key))) for key, value in raw.items()}
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        return [_replaced(value, names, (*path, place)) for place, value in enumerate(raw)]
    return raw
