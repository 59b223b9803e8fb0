"""docs/data.md: the table of the datasets of torchvision; ``data`` writes another part."""

import re

from convtrain.config.mistakes import as_yaml
from convtrain.config.torchvision_datasets import ROWS, Row
from docs.generate import DOCS

PAGE = DOCS / "data.md"
BEGIN, END = (
    "<!-- python -m docs.generate torchvision_datasets writes this table -->\n",
    "<!-- end -->\n",
)
HEAD = """| `data.name` | classes | `data.shape` | its splits | needs |
| --- | --- | --- | --- | --- |
"""


def classes(row: Row) -> str:
    if row.classes is None:
        return "`data.num_classes`"
    if isinstance(row.classes, int):
        return f"{row.classes:,}"
    counts = ", ".join(f"{as_yaml(value)} {count:,}" for value, count in row.classes.items())
    return f"`data.{row.by}`: {counts}"


def needs(row: Row) -> str:
    files = "files put there by hand" if row.by_hand else ""
    return ", ".join(filter(None, (row.needs, files)))


def table() -> str:
    lines = (
        f"| `{name}` | {classes(row)} | {'x'.join(map(str, row.shape))} | "
        f"{', '.join(row.splits) or 'none'} | {needs(row)} |\n"
        for name, row in sorted(ROWS.items(), key=lambda item: item[0].lower())
    )
    return HEAD + "".join(lines)


def page() -> str:
    """Return the page with its table as it should be."""
    written = PAGE.read_text()
    return re.sub(f"{BEGIN}.*?{END}", lambda _: BEGIN + table() + END, written, flags=re.DOTALL)
