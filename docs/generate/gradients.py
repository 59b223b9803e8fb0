"""docs/gradients.md: the table of statistics in it."""

import re

from convtrain.gradients.record.statistics import STATISTICS
from docs.generate import DOCS

PAGE = DOCS / "gradients.md"
HEAD = "| column | in NumPy | in TensorBoard |\n| --- | --- | --- |\n"


def page() -> str:
    """Return the page with the present table of statistics."""
    rows = [
        f"| `{name}` | `{definition}` | {f'`grad_{name}/PARAMETER`' if shown else ''} |\n"
        for name, _, definition, shown in STATISTICS
    ]
    return re.sub(f"{re.escape(HEAD)}(\\|.*\n)*", lambda _: HEAD + "".join(rows), PAGE.read_text())
