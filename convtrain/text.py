"""Text for people: numbers, and names that a library shows as they are.

Users choose the names of runs, classes, layers, experiments and folders, so a name may contain any
character. Each library below would interpret some of them; whoever passes a name to a library uses
the function here.
"""

import html
import io
import math
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_OF_FILES = 160  # characters per line if the output is no terminal


def make_console(
    *, file: TextIO | None = None, width: int | None = None, stderr: bool = False
) -> "Console":
    """Return a rich console without markup, emoji codes and highlighting, also inside tables.

    It does not break lines of text, so that a path or a command can be copied.

    Args:
        file: where to print; by default standard output, or standard error.
        width: characters per line; by default the terminal's, or ``WIDTH_OF_FILES``.
        stderr: print to standard error.
    """
    from rich.console import Console

    stream = file or (sys.stderr if stderr else sys.stdout)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # for characters that the encoding lacks
    if width is None and not stream.isatty():
        width = WIDTH_OF_FILES
    return Console(
        file=file, stderr=stderr, width=width, soft_wrap=True, markup=False, emoji=False,
        highlight=False,
    )  # fmt: skip


def format_bytes(count: float) -> str:
    """Return a number of bytes with three digits: ``1.23 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def format_scientific(value: float) -> str:
    """Return a number with two digits in scientific notation, without padding: ``1.2e-3``."""
    if not math.isfinite(value):
        return str(float(value))
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def as_mathtext(text: str) -> str:
    """Return what matplotlib draws as ``text``: a ``$`` in it begins no formula."""
    return text.replace("$", r"\$")


@contextmanager
def boxes_for_missing_letters() -> Iterator[None]:
    """Draw a box, without a warning, for each letter that matplotlib's font does not have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def as_markdown(text: str) -> str:
    """Return Markdown that shows ``text`` within a line, also in a cell of a table."""
    escaped = html.escape(text, quote=False)
    return re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", escaped)


def as_omegaconf(text: str) -> str:
    """Return what OmegaConf resolves to ``text``: a ``${`` in it is no interpolation."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def plain_as_omegaconf(value: Any) -> Any:
    """Return plain containers in which every text is what OmegaConf resolves to it."""
    if isinstance(value, dict):
        return {key: plain_as_omegaconf(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_as_omegaconf(inner) for inner in value]
    return as_omegaconf(value) if isinstance(value, str) else value


def as_hydra_value(text: str) -> str:
    """Return what Hydra reads as the value ``text`` after ``key=``."""
    return quoted(as_omegaconf(text))


def quoted(value: str) -> str:
    """Return a text, in quotes where Hydra's grammar needs them; interpolations stay such."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    try:
        read = OverridesParser.create().parse_override(f"key={value}").value()
    except (HydraException, RecursionError):
        read = None
    if isinstance(read, str) and read == value:
        return value
    return QuotedString(text=value, quote=Quote.single).with_quotes()


def matches(name: str, globs: Iterable[str]) -> bool:
    """Tell whether a name is one of the globs, letter by letter, or matches one."""
    return any(name == glob or fnmatchcase(name, glob) for glob in globs)
