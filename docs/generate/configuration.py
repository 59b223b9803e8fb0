"""docs/configuration.md: the table of all keys, below what is written by hand."""

from collections import defaultdict
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from convtrain.config.schema import Config
from docs.generate import DOCS

PAGE = DOCS / "configuration.md"
HEADING = "## Every key"
HEAD = f"""{HEADING}

`python -m docs.generate configuration` writes this table from the schema, and a test checks that it
is up to date. A key with choices in parentheses exists in these choices only.
`python train.py --cfg job` shows the values.

| key | allowed | what it is |
| --- | --- | --- |
"""
TYPES = {"integer": "whole", "number": "number", "boolean": "true, false", "null": "null"}
LARGEST = {2**31 - 1: "2^31 - 1", 2**32: "2^32"}
CHOICES = ("kind", "name", "style")  # keys that tell the choices of a group apart


def sections(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [found for part in get_args(annotation) for found in sections(part)]
    is_class = isinstance(annotation, type) and get_origin(annotation) is None  # not list[int]
    is_section = is_class and issubclass(annotation, BaseModel)
    return [annotation] if is_section else []


def leaves(
    section: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, type[BaseModel], FieldInfo]]:
    """Yield dotted key, section and field of every leaf."""
    for name, info in section.model_fields.items():
        inner = sections(info.annotation)
        for found in inner:
            yield from leaves(found, f"{prefix}{name}.")
        if not inner:
            yield prefix + (info.alias or name), section, info


def json_schema(info: FieldInfo) -> dict[str, Any]:
    kind: Any = info.annotation
    for constraint in info.metadata:
        kind = Annotated[kind, constraint]
    return TypeAdapter(kind).json_schema()


def allowed(schema: dict[str, Any]) -> str:
    """Return type and range of a JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(allowed(part) for part in schema["anyOf"]))
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return ", ".join(map(str, values))
    kind = schema.get("type")
    if kind in ("integer", "number"):
        low = bound(schema, "minimum", "exclusiveMinimum", "above")
        high = bound(schema, "maximum", "exclusiveMaximum", "below")
        return f"{TYPES[kind]}, {low} to {high}"
    if kind == "array":
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        count = f"{least} " if least == most else f"at least {least} " if least else ""
        item = schema.get("items") or {}
        return f"list of {count}({allowed(item)})" if item.get("type") else f"list of {count}items"
    if kind == "object":
        return "mapping"
    if kind == "string":
        return "text" if schema.get("maxLength") != 100 else "a name of at most 100 characters"
    return TYPES.get(str(kind), "anything")


def bound(schema: dict[str, Any], inclusive: str, exclusive: str, word: str) -> str:
    if inclusive in schema:
        return number(schema[inclusive])
    return f"{word} {number(schema[exclusive])}"


def number(value: float) -> str:
    return LARGEST.get(int(value), f"{value:g}")


def choices_of(section: type[BaseModel]) -> tuple[str, ...]:
    for name in CHOICES:
        info = section.model_fields.get(name)
        values = json_schema(info) if info else {}
        if found := values.get("enum", [values["const"]] if "const" in values else []):
            return tuple(found)
    return ()


def rows() -> list[str]:
    """Return a line for every key, the choices that share it together."""
    every: dict[str, set[str]] = defaultdict(set)
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for key, section, info in leaves(Config):
        choices, schema = choices_of(section), json_schema(info)
        every[key.rpartition(".")[0]].update(choices)
        tells_apart = key.rpartition(".")[2] in CHOICES and {"enum", "const"} & set(schema)
        values = "" if tells_apart else allowed(schema)
        found[key, values, str(info.description)] += choices
    lines = []
    for (key, values, text), shared in found.items():
        partial = values and shared and set(shared) != every[key.rpartition(".")[0]]
        behind = f" ({', '.join(shared)})" if partial else ""
        lines.append(f"| `{key}`{behind} | {values or ', '.join(shared)} | {text} |\n")
    return lines


def page() -> str:
    """Return the page with its table as it should be; what is above it is written by hand."""
    return PAGE.read_text().partition(HEADING)[0] + HEAD + "".join(rows())
