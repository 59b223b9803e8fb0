"""Overrides one by one: which choices exist, and what each job of a sweep is given."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
)
from hydra.errors import HydraException

from convtrain.config.messages import brief, takes_list
from convtrain.errors import closest, did_you_mean, first_line

MAX_VALUES = 1000  # of a key in a sweep; each is checked before the first job

Chosen = list[tuple[Override, str]]
"""Overrides, each with the one value that a job gets of it, as text: ``key=value``."""


def choices_of(folders: list[Path]) -> dict[str, list[str]]:
    """Return the choices of each group, as the folders list them."""
    files = [path for folder in folders for path in sorted(folder.glob("*/*.yaml"))]
    groups: dict[str, list[str]] = {path.parent.name: [] for path in files}
    for path in files:
        if not path.name.startswith("_"):
            groups[path.parent.name].append(path.stem)
    return groups


def one_value_each(
    overrides: list[Override], multirun: bool, groups: dict[str, list[str]], mistakes: list[str]
) -> Iterator[Chosen]:
    """Yield overrides without sweeps; in turn each value of each sweep appears once.

    ``mistakes`` gains a line for each choice that does not exist, which the closest one replaces,
    if there is one, and for several values outside of a sweep, which are left out.
    """
    kept: list[Override] = []
    values: list[list[str]] = []
    for override in overrides:
        key, text = override.key_or_group, override.input_line or ""
        if override.is_sweep_override() and not multirun:
            if takes_list(key):
                advice = f"type a list, quoted for the shell: '{key}=[{text.partition('=')[2]}]'"
            elif any(other.key_or_group == "resume" for other in overrides):
                advice = "a run that is resumed takes one; give one"
            else:
                advice = "add -m, or give one"
            mistakes.append(f"{brief(text)}: several values make a sweep; {advice}")
            continue
        elements = _elements(override, groups.get(key, []), mistakes)
        known = [_known_choice(key, value, groups, mistakes) for value in elements]
        options = [_one_value(override, value) for value, exists in known if exists]
        if options:
            kept.append(override)
            values.append(options)
    first = [options[0] for options in values]
    yield list(zip(kept, first, strict=True))
    for position, options in enumerate(values):
        for option in options[1:]:
            variant = [*first[:position], option, *first[position + 1 :]]
            yield list(zip(kept, variant, strict=True))


def let_through(override: Override, text: str, groups: dict[str, list[str]]) -> str:
    """Return an override of one value, forced where it names a key that may not exist."""
    as_typed = override.is_delete() or text.startswith(("+", "hydra"))
    return text if as_typed or is_choice(override, text, groups) else f"++{text}"


def is_choice(override: Override, text: str, groups: dict[str, list[str]]) -> bool:
    """Tell whether an override chooses among the files of a group."""
    value = text.partition("=")[2]
    return override.key_or_group in groups and not value.startswith("{")


def parse_override(text: str) -> Override | None:
    """Return an override, or None where it cannot be read."""
    try:
        override = OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError):
        return None
    return override if override.key_or_group else None


def at_home(path: str) -> str:
    """Return a path with ``~`` resolved, where this user has a home."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        return path


def _elements(override: Override, options: list[str], mistakes: list[str]) -> list[str | None]:
    """Return the values of an override as text: one, or each of a sweep's.

    Args:
        override: whatever was typed.
        options: the choices of its group, if it is one.
        mistakes: gains a line where the values cannot be told.
    """
    text = override.input_line or ""
    if override.is_delete():
        return [None]
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if override.is_interval_sweep():
        interval = override.value()  # the sweeper draws from it; both its ends must be right
        assert isinstance(interval, IntervalSweep)
        return [str(end) for end in (interval.start, interval.end)]
    value = override.value()
    if isinstance(value, Glob):  # Hydra's would take files that are no choice, too
        found = ",".join(value.filter(options)) or "A,B"
        mistakes.append(
            f"{brief(text)}: list the values of a sweep: {override.key_or_group}={found}"
        )
        return []
    if isinstance(value, ChoiceSweep) and (twice := _listed_twice(value.list)) is not None:
        mistakes.append(f"{brief(text)}: {twice} is listed twice; list each value once")
    if isinstance(value, RangeSweep):
        value.shuffle = False  # which lists them all, however many
    try:
        values = list(islice(override.sweep_string_iterator(), MAX_VALUES + 1))
    except (HydraException, ValueError) as error:
        mistakes.append(f"{brief(text)}: {first_line(error)}")
        return []
    if not values or len(values) > MAX_VALUES:
        much = f"more than {MAX_VALUES:,} values" if values else "no value"
        mistakes.append(f"{brief(text)}: {much}; a sweep has 1 to {MAX_VALUES:,} of a key")
        del values[1:]
    return [str(value) for value in values]


def _listed_twice(values: list[Any]) -> str | None:
    """Return a value that stands in a list more than once, in whatever spelling, or None."""
    seen: set[tuple[bool, str]] = set()
    for value in values:
        plain = value.text if isinstance(value, QuotedString) else value
        is_number = isinstance(plain, int | float) and not isinstance(plain, bool)
        mark = is_number, repr(float(plain) if is_number else plain)
        if mark in seen:
            return brief(plain)
        seen.add(mark)
    return None


def _known_choice(
    key: str, value: str | None, groups: dict[str, list[str]], mistakes: list[str]
) -> tuple[str | None, bool]:
    """Return a value, or the choice that is closest to it; and whether there is any."""
    options = groups.get(key.split("@", maxsplit=1)[0])
    if options is None or value is None or value in options or value.startswith("{"):
        return value, True
    mistakes.append(
        f"{key}={brief(value)}: no such choice{did_you_mean(value, options)}; "
        f"choose from {', '.join(options)} [set in: command line]"
    )
    near = closest(value, options)
    return near, near is not None


def _one_value(override: Override, value: str | None) -> str:
    text = override.input_line or ""
    as_typed = not override.is_sweep_override() and value == override.get_value_element_as_str()
    if value is None or as_typed:  # str(3) is the text 3, which would be read as a number
        return text
    return f"{text.partition('=')[0]}={value}"
