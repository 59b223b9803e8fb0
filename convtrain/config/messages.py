"""Convert pydantic's errors to mistakes: dotted key, allowed values and nearest spelling."""

import re
from functools import cache
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from convtrain.config.dotted import ABSENT, value_at
from convtrain.config.mistakes import MISSING, Mistake, as_yaml
from convtrain.config.other_tools import ADVICE
from convtrain.config.schema import Config
from convtrain.errors import closest

Model = type[BaseModel]

TAGS = ("kind", "style", "name")  # keys that select one section of several; the first counts


def mistakes_in(error: ValidationError, plain: object) -> list[Mistake]:
    """Return one mistake for each wrong key; the branches of a union share one."""
    found: dict[str, list[str]] = {}
    whole: list[Mistake] = []
    for wrong in error.errors(include_url=False):
        key = _key(wrong["loc"], plain)
        kind, message, context = wrong["type"], wrong["msg"], wrong.get("ctx", {})
        if kind == "missing" and isinstance(value_at(plain, key), dict) and key not in schema():
            key = f"{key}.{wrong['loc'][-1]}"  # in an item of a list
        if kind == "extra_forbidden":
            found[key] = [f"no such key{nearest(key, plain)}"]
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
    above = {key for key in found for other in found if other.startswith(f"{key}.")}
    inner = {key: texts for key, texts in found.items() if key not in above}  # of a union's list
    return whole + [Mistake(key, _told(key, texts, plain)) for key, texts in inner.items()]


def _worded(message: str) -> str:
    text = message.replace("Input should be", "must be").replace("Field required", MISSING)
    text = text.replace("a valid ", "a ").replace("a integer", "an integer")
    text = re.sub(r" after validation| or instance of \w+", "", text)
    text = re.sub(r"^(String|List) should", "must", text)
    return text[0].lower() + text[1:]


def _told(key: str, texts: list[str], plain: object) -> str:
    text = " or ".join(texts).replace(" or must be ", " or ")
    if text.startswith("no such key"):
        return text
    described = [info.description for _, info in _fields_at(key)]
    text += f" ({described[0]})" if described and described[0] else ""
    quotes = _in_quotes(key, plain) if texts == ["must be a string"] else None
    return text if quotes is None else f"{text}; type {quotes}"


def _in_quotes(key: str, plain: object) -> str | None:
    above, _, last = key.rpartition(".")
    items = value_at(plain, above) if last.isdigit() else None
    values = items if isinstance(items, list) else [value_at(plain, key)]
    if not all(isinstance(value, str | int | float) for value in values):
        return None
    texts = ",".join(f'"{as_yaml(value)}"' for value in values)
    return f"'{above}=[{texts}]'" if values is items else f"'{key}={texts}'"


def _key(location: tuple[int | str, ...], plain: object) -> str:
    """Return the dotted key of an error, without the union branches that pydantic adds to it."""
    key, node = "", plain
    for part in location:
        longer = f"{key}.{part}" if key else str(part)
        inside = (
            node[part] if isinstance(node, dict) and part in node else value_at(node, str(part))
        )
        if inside is not ABSENT or longer in schema():
            key, node = longer, inside
    return key


@cache
def schema() -> dict[str, list[tuple[Model, FieldInfo]]]:
    """Return, by dotted key, each section that has the key and the key's field there.

    The items of a list are ``*``; a list within an item is left out.
    """
    found: dict[str, list[tuple[Model, FieldInfo]]] = {}

    def collect(section: Model, above: str) -> None:
        for name, info in section.model_fields.items():
            key = f"{above}{info.alias or name}"
            found.setdefault(key, []).append((section, info))
            for inner in sections_in(info.annotation):
                collect(inner, f"{key}.")
            if get_origin(info.annotation) is list and "*" not in key:
                for item in sections_in(get_args(info.annotation)[0]):
                    collect(item, f"{key}.*.")

    collect(Config, "")
    return found


def _fields_at(key: str) -> list[tuple[Model, FieldInfo]]:
    return schema().get(re.sub(r"\.\d+(?=\.|$)", ".*", key), [])


@cache
def _by_leaf() -> dict[str, str]:
    """Return the keys of all values by their last part; the first of several counts."""
    keys = [
        key
        for key, ((_, info), *_) in schema().items()
        if not sections_in(info.annotation) and "*" not in key
    ]
    return {key.rpartition(".")[2]: key for key in reversed(keys)}


def sections_in(annotation: object) -> list[Model]:
    """Return the sections that an annotation allows, through unions and ``Annotated``."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [section for part in get_args(annotation) for section in sections_in(part)]
    is_class = isinstance(annotation, type) and get_origin(annotation) is None  # not list[int]
    is_section = is_class and issubclass(annotation, BaseModel)  # type: ignore[arg-type]
    return [annotation] if is_section else []  # type: ignore[list-item]


def section_of(annotation: object, value: object) -> Model | None:
    """Return the section of an annotation that a value selects, if it selects one."""
    sections = sections_in(annotation)
    if len(sections) > 1 and isinstance(value, dict):
        named = next((value[tag] for tag in TAGS if isinstance(value.get(tag), str)), None)
        if any(map(_tags, sections)):
            sections = [section for section in sections if named in _tags(section)]
        else:  # told apart by whether there is a _target_
            target = "_target_" in value
            sections = [each for each in sections if ("target" in each.model_fields) == target]
    return sections[0] if len(sections) == 1 else None


def _tags(section: Model) -> tuple[object, ...]:
    fields = [section.model_fields[name] for name in TAGS if name in section.model_fields]
    return next((tags for info in fields if (tags := get_args(info.annotation))), ())


def takes_list(key: str) -> bool:
    """Tell whether a key of the schema takes a list."""
    annotations = [info.annotation for _, info in schema().get(key, ())]
    return any(get_origin(part) is list for a in annotations for part in (a, *get_args(a)))


def nearest(key: str, plain: object) -> str:
    """Return what follows "no such key": its owner, the nearest spelling, or the known keys."""
    prefix, _, typed = key.rpartition(".")
    if have := [str(tag) for section, _ in schema().get(key, ()) for tag in _tags(section)]:
        return f" here; it belongs to {prefix}={', '.join(have)}"
    above = _fields_at(prefix)
    section = section_of(above[0][1].annotation, value_at(plain, prefix)) if above else None
    section = section if prefix else Config
    known = list(section.model_fields) if section else []
    # The plural of a word is nearer here than the same word elsewhere: model.weight, model.weights.
    if f"{typed}s" not in known and (advice := what_to_type(typed)) is not None:
        return f"; {advice}"
    if (near := closest(typed, known)) is not None:
        return f"; did you mean {f'{prefix}.' if prefix else ''}{near}?"
    if not prefix and (near := closest(typed, _by_leaf())) is not None:
        return f"; did you mean {_by_leaf()[near]}?"
    return f"; known here: {', '.join(known)}" if known else ""


def is_known(key: str, plain: object) -> bool:
    """Tell whether the schema has a key, or takes any key below one of its parents in ``plain``."""
    if key in schema():
        return True
    while key := key.rpartition(".")[0]:
        fields = [info for _, info in schema().get(key, ())]
        is_free = any(not sections_in(info.annotation) for info in fields)
        names_code = value_at(plain, f"{key}._target_") is not ABSENT
        if is_free or names_code or value_at(plain, f"{key}.kind") == "torchvision":
            return True
    return False


def what_to_type(word: str) -> str | None:
    """Return what to type for another tool's word, or for the last part of a key, or None."""
    if word in ADVICE:
        return ADVICE[word]
    return f"did you mean {_by_leaf()[word]}?" if word in _by_leaf() else None
