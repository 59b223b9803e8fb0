"""Every key has a type, a range, a unit and a place in the oracle."""

import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from convtrain.config.schema import Config
from tests.config.ranges import ROWS

UNIT = re.compile(
    r"\b(images?|pixels|epochs?|steps?|batch(es)?|[GM]iB|minutes|devices?|machines|threads|classes|bits|seed|"
    r"probability|part of|part|factor|number of|norm|score|scores|metric|exponent|decay|units of|"
    r"on images in 0-1|0-1)\b"
)


def sections(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [found for part in get_args(annotation) for found in sections(part)]
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_section else []


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield dotted key, the section's class, and the field of every leaf."""
    for name, info in section.model_fields.items():
        inner = sections(info.annotation)
        for found in inner:
            yield from leaves(found, f"{prefix}{name}.")
        if not inner:
            yield prefix + (info.alias or name), section.__name__, info


LEAVES = [pytest.param(*leaf, id=f"{leaf[1]}.{leaf[0]}") for leaf in leaves(Config)]


@pytest.mark.parametrize(("key", "section", "info"), LEAVES)
def test_every_key_says_what_it_is_and_in_what_unit(
    key: str, section: str, info: FieldInfo
) -> None:
    assert info.description, f"{key} has no description"
    numbers = numeric_parts(info)
    for schema in numbers:
        assert {"minimum", "exclusiveMinimum"} & set(schema), f"{key} has no lower end"
        assert {"maximum", "exclusiveMaximum"} & set(schema), f"{key} has no upper end"
    if numbers:
        assert UNIT.search(info.description), f"{key}: no unit in {info.description!r}"


def numeric_parts(info: FieldInfo) -> list[dict[str, Any]]:
    """Return the JSON schemas of the numbers that a field allows, in lists too."""
    from pydantic import TypeAdapter

    kind: Any = info.annotation
    for constraint in info.metadata:
        kind = Annotated[kind, constraint]
    found: list[dict[str, Any]] = []

    def collect(schema: dict[str, Any]) -> None:
        is_number = schema.get("type") in ("integer", "number")
        if is_number and not {"enum", "const"} & set(schema):
            found.append(schema)
        inner = [schema["items"]] if "items" in schema else []
        for part in (*schema.get("anyOf", ()), *inner):
            collect(part)

    collect(TypeAdapter(kind).json_schema())
    return found


def test_the_oracle_knows_every_key() -> None:
    known = {key for _, allowed in ROWS for key in allowed}
    assert {leaf[0] for leaf in leaves(Config)} == known
