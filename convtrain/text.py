"""Formatted numbers, and user-chosen names escaped for the library that shows them.

The names of runs, classes, layers, experiments and folders may contain any character, and rich,
matplotlib, Markdown, OmegaConf and Hydra each interpret some of them.
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

WIDTH_OF_FILES = 160  # characters per line if the output is not a terminal


def make_console(
    *, file: TextIO | None = None, width: int | None = None, stderr: bool = False
) -> "Console":
    """Return a rich console that neither interprets text nor breaks lines, so that paths copy."""
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
    """Format a number of bytes: ``1.23 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def format_scientific(value: float) -> str:
    """Format a number with two digits, without padding of the exponent: ``1.2e-3``."""
    if not math.isfinite(value):
        return str(float(value))
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def format_metric(name: str, value: float) -> str:
    """Format a metric's value: an accuracy as a percentage, another with four digits."""
    return f"{value:.2%}" if name.endswith("acc") else f"{value:.4g}"


def format_duration(seconds: float | None) -> str:
    """Format a duration in seconds, minutes or hours; None is an empty text."""
    if seconds is None:
        return ""
    if (tenths := round(seconds, 1)) < 60:
        return f"{tenths:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def as_mathtext(text: str) -> str:
    """Escape ``$``, which begins a formula in matplotlib."""
    return text.replace("$", r"\$")


@contextmanager
def boxes_for_missing_letters() -> Iterator[None]:
    """Silence matplotlib's warning where it draws a box for a letter that its font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from (current )?font")
        yield


def as_markdown(text: str) -> str:
    """Escape text for a line of Markdown or a cell of a table."""
    escaped = html.escape(text, quote=False)
    return re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", escaped)


def as_omegaconf(text: str) -> str:
    """Escape ``${``, which begins an interpolation in OmegaConf."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def plain_as_omegaconf(value: Any) -> Any:
    """Apply ``as_omegaconf`` to every string in nested containers."""
    if isinstance(value, dict):
        return {key: plain_as_omegaconf(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_as_omegaconf(inner) for inner in value]
    return as_omegaconf(value) if isinstance(value, str) else value


def as_hydra_value(text: str) -> str:
    """Quote and escape ``text`` so that Hydra reads it as the value after ``key=``."""
    return quoted(as_omegaconf(text))


def quoted(value: str) -> str:
    """Quote a value where Hydra's grammar requires it; an interpolation in it still resolves."""
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
    """Tell whether a name equals one of the globs or matches it; a name may contain ``[``."""
    return any(name == glob or fnmatchcase(name, glob) for glob in globs)
