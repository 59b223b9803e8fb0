"""Parse overrides, and list the choices of groups and the values of a sweep's jobs."""

import re
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

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

from convtrain.config.metrics import by_name, two_are_called
from convtrain.config.mistakes import TYPED, brief
from convtrain.errors import ConfigError, closest, did_you_mean, first_line
from convtrain.text import quoted

SEVERAL = ("metrics",)  # groups of which a list of choices may be typed
MAX_VALUES = 1000  # per key of a sweep; each is checked before the first job

Chosen = list[tuple[Override, str]]  # each with the one value that a job uses, as "key=value"


def parse_override(text: str) -> Override | None:
    """Return an override, or None if it cannot be read. The same text is parsed once."""
    return copy(_parsed(text))


@cache
def _parsed(text: str) -> Override | None:
    try:
        override = _parser().parse_override(text)
    except (HydraException, RecursionError):
        return None
    return override if override.key_or_group else None


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def readable(text: str) -> str:
    """Return an override as Hydra's grammar reads it, with ``~`` for the user's folder resolved.

    The grammar knows ASCII letters and a few signs; a value with others is put in quotes. A comma
    separates values, alone or in a list; to mean the character, quote the value.
    """
    key, equals, value = text.partition("=")
    override = parse_override(text)
    if override is not None:
        typed = None if override.is_sweep_override() else override.value()
        is_home = isinstance(typed, str) and typed != at_home(typed)
        return f"{key}={quoted(at_home(str(typed)))}" if is_home else text
    is_list = value.startswith("[") and value.endswith("]")
    inside = value[1:-1] if is_list else value
    calls = inside.startswith(tuple(f"{name}(" for name in _parser().functions.definitions))
    has_parts = is_list or "," in inside
    if (
        not equals
        or calls
        or inside.startswith(("=", "'", '"', "{"))
        or (has_parts and re.search(r"[\[\]{}()'\"]", inside))
    ):
        return text  # quotes and brackets have to be closed by the user
    parts = [part.strip() for part in inside.split(",")] if has_parts else [inside]
    plain = [parse_override(f"key={part}") is not None for part in parts]
    items = ",".join(
        p if is_plain else quoted(at_home(p)) for p, is_plain in zip(parts, plain, strict=True)
    )
    again = f"{key}=[{items}]" if is_list else f"{key}={items}"
    return text if parse_override(again) is None else again


def choices_apart(text: str) -> list[str]:
    """Return an override, or one for the choices in a list of metrics and one for its classes.

    Raises:
        ConfigError: an item names no class, or two metrics have one name.
    """
    override, key = parse_override(text), text.partition("=")[0]
    if key not in SEVERAL or override is None or override.is_sweep_override():
        return [text]
    listed = override.value()
    if not isinstance(listed, list) or not any(isinstance(item, dict) for item in listed):
        return [text]
    choices = [item for item in listed if isinstance(item, str)]
    try:
        classes = by_name(item for item in listed if not isinstance(item, str))
        if twice := next((name for name in choices if name in classes), None):
            raise ValueError(two_are_called(twice))
    except ValueError as error:
        raise ConfigError(f"{brief(text)}: {error}") from None
    chosen = [f"{key}=[{','.join(choices)}]"] if choices else []
    return [*chosen, f"{key}={_in_grammar(classes)}"]


def _in_grammar(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_in_grammar(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_in_grammar, value))}]"
    if isinstance(value, str):
        return quoted(value)
    return (
        "null"
        if value is None
        else str(value).lower()
        if value is True or value is False
        else repr(value)
    )


def at_home(path: str) -> str:
    """Return a path with ``~`` resolved, if this user has a home."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        return path


def shown(override: Override) -> str:
    """Return an override as it was typed, shortened if it is long."""
    return brief(override.input_line)


def is_choice(override: Override, text: str, groups: dict[str, list[str]]) -> bool:
    """Tell whether an override chooses a file of a group."""
    value = text.partition("=")[2]
    return override.key_or_group in groups and not value.startswith("{")


def one_value_each(
    overrides: list[Override], multirun: bool, groups: dict[str, list[str]], mistakes: list[str]
) -> Iterator[Chosen]:
    """Yield the overrides with one value each, so that each value of each sweep appears once.

    ``mistakes`` gains a line for each choice that does not exist, which the closest one replaces if
    there is one, and for each sweep outside of a multirun, which is left out.
    """
    kept: list[Override] = []
    values: list[list[str]] = []
    for override in overrides:
        if override.is_sweep_override() and not multirun:
            mistakes.append(_several_values(override, overrides))
            continue
        elements = _elements(override, groups.get(override.key_or_group, []), mistakes)
        known = [_known_choice(override.key_or_group, v, groups, mistakes) for v in elements]
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


def _several_values(override: Override, overrides: list[Override]) -> str:
    from convtrain.config.messages import takes_list

    key, text = override.key_or_group, override.input_line or ""
    if takes_list(key) or key in SEVERAL:
        advice = f"type a list, quoted for the shell: '{key}=[{text.partition('=')[2]}]'"
    elif any(other.key_or_group == "resume" for other in overrides):
        advice = "a run that is resumed takes one; give one"
    else:
        advice = "add -m, or give one"
    return f"{brief(text)}: several values make a sweep; {advice}"


def _elements(override: Override, options: list[str], mistakes: list[str]) -> list[str | None]:
    if override.is_delete():
        return [None]
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    value = override.value()
    if isinstance(value, IntervalSweep):  # a sweeper draws from it; both its ends must be right
        return [str(end) for end in (value.start, value.end)]
    if isinstance(value, Glob):  # Hydra's would match files that are no choice, too
        found = ",".join(value.filter(options)) or "A,B"
        key = override.key_or_group
        mistakes.append(f"{shown(override)}: list the values of a sweep: {key}={found}")
        return []
    if isinstance(value, ChoiceSweep) and (twice := _listed_twice(value.list)) is not None:
        mistakes.append(f"{shown(override)}: {twice} is listed twice; list each value once")
    if isinstance(value, RangeSweep):
        override = replace(override, _value=replace(value, shuffle=False))  # which lists them all
    try:
        values = list(islice(override.sweep_string_iterator(), MAX_VALUES + 1))
    except (HydraException, ValueError) as error:
        mistakes.append(f"{shown(override)}: {first_line(error)}")
        return []
    if not values or len(values) > MAX_VALUES:
        much = f"more than {MAX_VALUES:,} values" if values else "no value"
        mistakes.append(f"{shown(override)}: {much}; a sweep has 1 to {MAX_VALUES:,} of a key")
        del values[1:]
    return [str(value) for value in values]


def _listed_twice(values: Sequence[object]) -> str | None:
    """Return a value that is listed twice, in any spelling such as 1 and 1.0, or None."""
    seen: set[tuple[bool, str]] = set()
    for value in values:
        plain = value.text if isinstance(value, QuotedString) else value
        is_number = isinstance(plain, int | float) and not isinstance(plain, bool)
        mark = is_number, repr(float(plain) if is_number else plain)  # type: ignore[arg-type]
        if mark in seen:
            return brief(plain)
        seen.add(mark)
    return None


def _known_choice(
    key: str, value: str | None, groups: dict[str, list[str]], mistakes: list[str]
) -> tuple[str | None, bool]:
    """Return a value, or the choice that is closest to it; and whether there is any."""
    options = groups.get(key.split("@", maxsplit=1)[0])
    if key in SEVERAL and options is not None and value is not None and value.startswith("["):
        names = [name.strip() for name in value[1:-1].split(",")] if value != "[]" else []
        wrong = [name for name in names if name not in options]
        mistakes += [no_such_choice(key, brief(name), options, TYPED) for name in wrong]
        return value, not wrong
    if options is None or value is None or value in options or value.startswith("{"):
        return value, True
    mistakes.append(no_such_choice(key, brief(value), options, TYPED))
    near = closest(value, options)
    return near, near is not None


def no_such_choice(group: str, choice: str, options: list[str], source: str) -> str:
    """Return the line for a choice that a group does not have."""
    is_class = group in SEVERAL and re.fullmatch(r"\w+(\.\w+)+", choice)
    advice = f"; type a class as {group}.NAME._target_={choice}" if is_class else ""
    return (
        f"{group}={choice}: no such choice{advice or did_you_mean(choice, options)}; "
        f"choose from {', '.join(options)} [set in: {source}]"
    )


def _one_value(override: Override, value: str | None) -> str:
    text = override.input_line or ""
    as_typed = not override.is_sweep_override() and value == override.get_value_element_as_str()
    if value is None or as_typed:  # str(3) is the text 3, which would be read as a number
        return text
    return f"{text.partition('=')[0]}={value}"
