"""A mistake as one line: key, value, what is allowed, nearest spelling, what set it."""

import math
import re
from collections.abc import Callable
from functools import cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from convtrain.config.schema import Config
from convtrain.config.words import ELSEWHERE
from convtrain.errors import closest, one_line

Origin = Callable[[str], str]
"""From a dotted key to the file that set it, or ``command line``."""

UNKNOWN, MISSING = "no such key", "is missing"
TYPED = "command line"  # the origin of an override
LONGEST_VALUE = 120  # characters
TAGS = ("name", "style")  # keys that tell which section of several is meant


class Mistake(NamedTuple):
    key: str
    text: str  # what is allowed, and what to do


def line(mistake: Mistake, plain: Any, origin: Origin | None = None) -> str:
    """Return the line that an error shows.

    Args:
        plain: the configuration, for the value.
        origin: tells what set the key.
    """
    key, text = mistake
    if not key:
        return one_line(text)
    value = _value(plain, key)
    shown = "" if value is ABSENT else f"={brief(value)}"
    source = f" [set in: {origin(key)}]" if origin else ""
    return one_line(f"{key}{shown}: {text}{source}")


def brief(value: Any) -> str:
    """Show a value as YAML would, shortened where it is long."""
    text = _flow(value, depth=0)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _flow(value: Any, depth: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else f".{str(value).lstrip('-')}"
    if isinstance(value, str) or not isinstance(value, dict | list):
        return str(value)[: LONGEST_VALUE + 1]
    if depth > 3:
        return "..."
    shown = 2 * LONGEST_VALUE
    if isinstance(value, dict):
        parts = [f"{k}: {_flow(v, depth + 1)}" for k, v in list(value.items())[:shown]]
        return f"{{{', '.join(parts)}}}"
    return f"[{', '.join(_flow(item, depth + 1) for item in value[:shown])}]"


# --- from pydantic's errors -----------------------------------------------------------------------


def mistakes_in(error: ValidationError, plain: dict[str, Any]) -> list[Mistake]:
    """Return one mistake for each wrong key; the alternatives of a union share one."""
    found: dict[str, list[str]] = {}
    details: dict[str, str] = {}
    whole: list[Mistake] = []
    for wrong in error.errors(include_url=False):
        key, section = _key(wrong["loc"], plain)
        kind, message = wrong["type"], wrong["msg"]
        if kind == "extra_forbidden":
            found[key] = [f"{UNKNOWN}{_nearest(key, section)}"]
            continue
        if kind == "value_error":
            whole.append(Mistake("", message.removeprefix("Value error, ")))
            continue
        if kind == "union_tag_invalid":
            tags = wrong.get("ctx", {})
            key = f"{key}.{str(tags['discriminator']).strip(chr(39))}"
            message = f"Input should be one of {tags['expected_tags']}"
        if kind == "union_tag_not_found":
            key = f"{key}.{str(wrong.get('ctx', {})['discriminator']).strip(chr(39))}"
            message = "Field required"
        if kind == "string_pattern_mismatch":
            message = "has characters that are not allowed"
        text = message.replace("Input should be", "must be").replace("Field required", MISSING)
        text = text.replace("a valid ", "a ").replace("a integer", "an integer")
        text = text.replace(" after validation", "")
        text = re.sub(r"^(String|List) should", "must", text)
        found.setdefault(key, [])
        if text not in found[key]:
            found[key].append(text[0].lower() + text[1:])
        leaf = key.rsplit(".", maxsplit=1)[-1]
        if section and (info := section.model_fields.get(leaf)) and info.description:
            details[key] = f" ({info.description})"
    for key, texts in found.items():
        if texts == ["must be a string"] and (quotes := _in_quotes(key, plain)) is not None:
            details[key] = f"{details.get(key, '')}; type {quotes}"
    return whole + [
        Mistake(key, " or ".join(texts).replace(" or must be ", " or ") + details.get(key, ""))
        for key, texts in found.items()
    ]


def _in_quotes(key: str, plain: Any) -> str | None:
    """Return the override that makes text of a number or a truth value, or of a list of them."""
    above, _, last = key.rpartition(".")
    if last.isdigit() and isinstance(items := _value(plain, above), list):
        key, values = above, items
    else:
        values = [_value(plain, key)]
    if not all(isinstance(value, str | int | float) for value in values):
        return None
    texts = ",".join(f'"{_flow(value, depth=0)}"' for value in values)
    return f"'{key}=[{texts}]'" if last.isdigit() else f"'{key}={texts}'"


ABSENT = object()


def _value(plain: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(plain, list) and part.isdigit() and int(part) < len(plain):
            plain = plain[int(part)]
        elif isinstance(plain, dict) and part in plain:
            plain = plain[part]
        else:
            return ABSENT
    return plain


def _key(location: tuple[int | str, ...], plain: Any) -> tuple[str, type[BaseModel] | None]:
    """Return the dotted key of an error, and the section that holds it.

    pydantic's location also names the branch of a union; a part that is neither a key of the
    configuration nor a field of the section is such a branch.
    """
    section: type[BaseModel] | None = Config
    parts: list[str] = []
    node: Any = plain
    for part in location:
        alternatives = _branches(section, parts)
        matching = [branch for branch in alternatives if _tagged(branch, str(part))]
        if matching and len(alternatives) > 1:
            section = matching[0]
            continue
        inside = isinstance(node, dict) and part in node
        inside = inside or (isinstance(node, list) and isinstance(part, int) and part < len(node))
        if alternatives:
            below: type[BaseModel] | None = alternatives[0]
        else:
            below = None if parts and section and parts[-1] in section.model_fields else section
        if not inside and not (below and _has(below, part)):
            continue
        section = below
        parts.append(str(part))
        node = node[part] if inside else None
    return ".".join(parts), section


def _has(section: type[BaseModel], part: int | str) -> bool:
    fields = section.model_fields
    return part in fields or any(info.alias == part for info in fields.values())


def _branches(section: type[BaseModel] | None, parts: list[str]) -> list[type[BaseModel]]:
    """Return the sections that the last key of ``parts`` may hold."""
    if section is None or not parts or parts[-1] not in section.model_fields:
        return []
    return _sections(section.model_fields[parts[-1]].annotation)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections an annotation allows, through unions and ``Annotated``."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [s for part in get_args(annotation) for s in _sections(part)]
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_section else []


def section_of(annotation: Any, value: Any) -> type[BaseModel] | None:
    """Return the section that a value is meant for, among those that an annotation allows."""
    sections = _sections(annotation)
    if len(sections) > 1 and isinstance(value, dict):
        named = [str(value[tag]) for tag in TAGS if isinstance(value.get(tag), str)]
        sections = [s for s in sections if any(_tagged(s, name) for name in named)]
    return sections[0] if len(sections) == 1 else None


def takes_list(key: str) -> bool:
    """Tell whether a key of the schema takes a list."""
    sections: list[type[BaseModel]] = [Config]
    annotations: list[Any] = []
    for part in key.split("."):
        fields = [s.model_fields[part] for s in sections if part in s.model_fields]
        annotations = [info.annotation for info in fields]
        sections = [s for annotation in annotations for s in _sections(annotation)]
    parts = [p for annotation in annotations for p in (annotation, *get_args(annotation))]
    return any(get_origin(part) is list for part in parts)


def _tags(section: type[BaseModel]) -> tuple[Any, ...]:
    """Return the values of the field that tells a union's branches apart."""
    for name in TAGS:
        info = section.model_fields.get(name)
        if info is not None and get_args(info.annotation):
            return get_args(info.annotation)
    return ()


def _tagged(section: type[BaseModel], tag: str) -> bool:
    return tag in _tags(section)


def _nearest(key: str, section: type[BaseModel] | None) -> str:
    """Return the rest of "no such key": who has it, the nearest spelling, or what there is."""
    prefix, _, typed = key.rpartition(".")
    known = section.model_fields if section else {}
    if prefix in Config.model_fields:
        siblings = _sections(Config.model_fields[prefix].annotation)
        have = [str(tag) for s in siblings if typed in s.model_fields for tag in _tags(s)]
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
    if word in ELSEWHERE:
        return ELSEWHERE[word]
    return f"did you mean {_by_leaf()[word]}?" if word in _by_leaf() else None


@cache
def _by_leaf() -> dict[str, str]:
    """Return the keys of the schema by their last part, which of several the first has."""
    return {key.rpartition(".")[2]: key for key in reversed(_all_keys(Config))}


def _all_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in section.model_fields.items():
        inner = _sections(info.annotation)
        keys += [k for s in inner for k in _all_keys(s, f"{prefix}{name}.")] or [prefix + name]
    return keys
