"""The page of the documentation lists what the catalogue holds today."""

from torch import nn

from convtrain.layers import FAMILIES
from convtrain.layers.exceptions import EXCEPTIONS
from docs.generate.layers import PAGE, columns

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("|") and not line.startswith(("| ---", "| layer", "| class"))
]

MISSING = {"LinearCrossEntropyLoss"} - vars(nn).keys()  # newer than the oldest torch supported


def test_the_page_is_current() -> None:
    entries = [entry for family in FAMILIES.values() for entry in family]
    expected = [columns(entry) for entry in entries]
    listed = [row[:4] for row in ROWS if len(row) == 6 and row[0] not in MISSING]
    assert listed == expected, "run: python -m docs.generate layers"


def test_the_page_gives_the_exceptions_and_their_reasons() -> None:
    assert [row for row in ROWS if len(row) == 2] == [list(item) for item in EXCEPTIONS.items()]


def test_every_layer_listed_has_the_same_bits() -> None:
    assert {row[5] for row in ROWS if len(row) == 6} == {"same bits", "no forward"}
