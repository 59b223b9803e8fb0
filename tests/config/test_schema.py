"""Every key has a type, a range, a unit and a place in the oracle."""

import re
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from convtrain.config.schema import Config
from convtrain.config.section import Choice
from docs.generate.configuration import PAGE, json_schema, leaves, page
from tests.config.ranges import ROWS

UNIT = re.compile(
    r"\b(images?|pixels|epochs?|steps?|batch(es)?|[GM]iB|minutes|devices?|GPUs|machines|threads|classes|bits|seed|"
    r"probability|part of|part|factor|number of|norm|logits|metric|exponent|decay|units of|"
    r"on images in 0-1|0-1)\b"
)


LEAVES = [pytest.param(*leaf, id=f"{leaf[1].__name__}.{leaf[0]}") for leaf in leaves(Config)]


@pytest.mark.parametrize(("key", "section", "info"), LEAVES)
def test_every_key_says_what_it_is_and_in_what_unit(
    key: str, section: type[BaseModel], info: FieldInfo
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
    found: list[dict[str, Any]] = []

    def collect(schema: dict[str, Any]) -> None:
        is_number = schema.get("type") in ("integer", "number")
        if is_number and not {"enum", "const"} & set(schema):
            found.append(schema)
        inner = [schema["items"]] if "items" in schema else []
        for part in (*schema.get("anyOf", ()), *inner):
            collect(part)

    collect(json_schema(info))
    return found


def test_the_oracle_knows_every_key() -> None:
    """The keys of a new choice have a range and a unit above, and may wait for the oracle."""
    needed = {key for key, section, _ in leaves(Config) if not issubclass(section, Choice)}
    assert needed <= known_keys() <= {key for key, *_ in leaves(Config)}


def test_the_table_of_keys_is_current() -> None:
    written = PAGE.read_text()
    assert written == page(), "write it with python -m docs.generate configuration"
    for key in known_keys():
        assert f"| `{key}`" in written


def known_keys() -> set[str]:
    return {key for _, allowed in ROWS for key in allowed}
