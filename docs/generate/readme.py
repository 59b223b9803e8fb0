"""README.md: what ``convtrain code`` prints of one network in both styles, side by side."""

import re

from convtrain.models.build import Style
from convtrain.use.code.write import write_code
from docs.generate import DOCS
from tests.conftest import compose

PAGE = DOCS.parent / "README.md"
STYLES: tuple[Style, ...] = ("nn", "functional")
NETWORK = ("network=lenet", "data=mnist")
BEGIN, END = "<!-- python -m docs.generate readme writes this table -->\n", "<!-- end -->\n"


def model_of(style: Style) -> str:
    """Return the network's class; the lines above it would make the columns too wide."""
    text = write_code(compose(*NETWORK), style).text
    return text[text.index("class LeNet") : text.index("\n\n\ndef train(")]


def table() -> str:
    cells = [f'<td valign="top">\n\n```python\n{model_of(style)}\n```\n\n</td>' for style in STYLES]
    typed = [f"convtrain code {' '.join(NETWORK)} model={style}" for style in STYLES]
    names = [f"<th><code>{command}</code></th>" for command in typed]
    rows = (f"<tr>{''.join(names)}</tr>", f"<tr>\n{chr(10).join(cells)}\n</tr>")
    return "<table>\n" + "\n".join(rows) + "\n</table>\n"


def page() -> str:
    """Return the page with the present table; what is around it is written by hand."""
    return re.sub(
        f"{BEGIN}.*?{END}", lambda _: BEGIN + table() + END, PAGE.read_text(), flags=re.DOTALL
    )
