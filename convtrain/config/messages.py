"""pydantic's errors as mistakes: the dotted key, what is allowed, the nearest spelling."""

import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from convtrain.config.dotted import value_at
from convtrain.config.mistakes import MISSING, Mistake, as_yaml
from convtrain.config.other_tools import ADVICE
from convtrain.config.schema import Config
from convtrain.errors import closest

Model = type[BaseModel]

TAGS = ("name", "style")  # keys that tell which section of several is meant


def mistakes_in(error: ValidationError, plain: object) -> list[Mistake]:
    """Return one mistake for each wrong key; the alternatives of a union share one."""
    found: dict[str, list[str]] = {}
    details: dict[str, str] = {}
    whole: list[Mistake] = []
    for wrong in error.errors(include_url=False):
        key, section = _key(wrong["loc"], plain)
        kind, message, context = wrong["type"], wrong["msg"], wrong.get("ctx", {})
        if kind == "extra_forbidden":
            found[key] = [f"no such key{_nearest(key, section)}"]
            continue
        if kind == "value_error":
            whole.append(Mistake("", message.removeprefix("Value error, ")))
            continue
        if kind.startswith("union_tag"):
            key = f"{key}.{str(context['discriminator']).strip(chr(39))}"
            tags = context.get("expected_tags")
            message = f"Input should be one of {tags}" if tags else "Field required"
        if kind == "string_pattern_mismatch":
            message = "has characters that are not allowed"
        text = _worded(message)
        if text not in found.setdefault(key, []):
            found[key].append(text)
        info = section.model_fields.get(key.rpartition(".")[2]) if section else None
        if info is not None and info.description:
            details[key] = f" ({info.description})"
    for key, texts in found.items():
        if texts == ["must be a string"] and (quotes := _in_quotes(key, plain)) is not None:
            details[key] = f"{details.get(key, '')}; type {quotes}"
    return whole + [
        Mistake(key, " or ".join(texts).replace(" or must be ", " or ") + details.get(key, ""))
        for key, texts in found.items()
    ]


def _worded(message: str) -> str:
    text = message.replace("Input should be", "must be").replace("Field required", MISSING)
    text = text.replace("a valid ", "a ").replace("a integer", "an integer")
    text = re.sub(r"^(String|List) should", "must", text.replace(" after validation", ""))
    return text[0].lower() + text[1:]


def _in_quotes(key: str, plain: object) -> str | None:
    """Return the override that makes text of a number or a truth value, or of a list of them."""
    above, _, last = key.rpartition(".")
    items = value_at(plain, above) if last.isdigit() else None
    values = items if isinstance(items, list) else [value_at(plain, key)]
    if not all(isinstance(value, str | int | float) for value in values):
        return None
    texts = ",".join(f'"{as_yaml(value)}"' for value in values)
    return f"'{above}=[{texts}]'" if values is items else f"'{key}={texts}'"


# --- where in the schema --------------------------------------------------------------------------


def _key(location: tuple[int | str, ...], plain: object) -> tuple[str, Model | None]:
    """Return the dotted key of an error, and the section that holds it.

    pydantic's location also names the branch of a union; a part that is neither a key of the
    configuration nor a field of the section is such a branch.
    """
    section: Model | None = Config
    parts: list[str] = []
    node = plain
    for part in location:
        branches = _branches(section, parts)
        if len(branches) > 1 and (tagged := [b for b in branches if str(part) in tags_of(b)]):
            section = tagged[0]
            continue
        inside = isinstance(node, dict) and part in node
        inside = inside or (isinstance(node, list) and isinstance(part, int) and part < len(node))
        if branches:
            below: Model | None = branches[0]
        else:
            below = None if parts and section and parts[-1] in section.model_fields else section
        if not inside and not (below and _has(below, part)):
            continue
        section = below
        parts.append(str(part))
        node = node[part] if inside else None  # type: ignore[index]
    return ".".join(parts), section


def _has(section: Model, part: int | str) -> bool:
    fields = section.model_fields
    return part in fields or any(info.alias == part for info in fields.values())


def _branches(section: Model | None, parts: list[str]) -> list[Model]:
    """Return the sections that the last key of ``parts`` may hold."""
    if section is None or not parts or parts[-1] not in section.model_fields:
        return []
    return sections_in(section.model_fields[parts[-1]].annotation)


def sections_in(annotation: object) -> list[Model]:
    """Return the sections that an annotation allows, through unions and ``Annotated``."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [section for part in get_args(annotation) for section in sections_in(part)]
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_section else []  # type: ignore[list-item]


def section_of(annotation: object, value: object) -> Model | None:
    """Return the section that a value is meant for, among those that an annotation allows."""
    sections = sections_in(annotation)
    if len(sections) > 1 and isinstance(value, dict):
        named = {value[tag] for tag in TAGS if isinstance(value.get(tag), str)}
        sections = [section for section in sections if named.intersection(tags_of(section))]
    return sections[0] if len(sections) == 1 else None


def tags_of(section: Model) -> tuple[object, ...]:
    """Return the values of the field that tells a union's branches apart."""
    fields = [section.model_fields[name] for name in TAGS if name in section.model_fields]
    return next((tags for info in fields if (tags := get_args(info.annotation))), ())


def takes_list(key: str) -> bool:
    """Tell whether a key of the schema takes a list."""
    sections: list[Model] = [Config]
    annotations: list[object] = []
    for part in key.split("."):
        annotations = [s.model_fields[part].annotation for s in sections if part in s.model_fields]
        sections = [section for each in annotations for section in sections_in(each)]
    parts = [part for each in annotations for part in (each, *get_args(each))]
    return any(get_origin(part) is list for part in parts)


# --- the nearest key ------------------------------------------------------------------------------


def _nearest(key: str, section: Model | None) -> str:
    """Return the rest of "no such key": who has it, the nearest spelling, or what there is."""
    prefix, _, typed = key.rpartition(".")
    known = section.model_fields if section else {}
    if prefix in Config.model_fields:
        siblings = sections_in(Config.model_fields[prefix].annotation)
        have = [str(tag) for s in siblings if typed in s.model_fields for tag in tags_of(s)]
        if have:
            return f" here; it belongs to {prefix}={', '.join(have)}"
    if (advice := what_to_type(typed)) is not None:
        return f"; {advice}"
    if (near := closest(typed, known)) is not None:
        return f"; did you mean {f'{prefix}.' if prefix else ''}{near}?"
    if not prefix and (near := closest(typed, _by_leaf())) is not None:
        return f"; did you mean {_by_leaf()[near]}?"
    return f"; known here: {', '.join(known)}" if known else ""


def what_to_type(word: str) -> str | None:
    """Return where a setting is found that was looked for elsewhere, if the word is known."""
    if word in ADVICE:
        return ADVICE[word]
    return f"did you mean {_by_leaf()[word]}?" if word in _by_leaf() else None


@cache
def _by_leaf() -> dict[str, str]:
    """Return the keys of the schema by their last part; the first of several counts."""
    return {key.rpartition(".")[2]: key for key in reversed(list(keys_of(Config)))}


def keys_of(section: Model, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every value that the schema knows."""
    for name, info in section.model_fields.items():
        inner = sections_in(info.annotation)
        below = [key for s in inner for key in keys_of(s, f"{prefix}{name}.")]
        yield from below or [prefix + name]
