"""Render a template as one HTML file that loads nothing from outside, and write it.

A template extends ``base.html.j2`` and takes its building blocks from ``macros.html.j2``. Every
value is escaped unless it is ``Markup``, as the plots are. A content security policy lets the
browser run the one script of ``plots.js`` and refuses all other scripts and every request.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.environment import TemplateModule
from markupsafe import Markup

from convtrain.process.atomic import write_atomically
from convtrain.program import relative
from convtrain.text import format_bytes, format_duration, format_metric

HERE = Path(__file__).parent


def render(template: Path, **values: object) -> str:
    """Return the page of a ``*.html.j2`` file."""
    return _environment(template.parent).get_template(template.name).render(**values) + "\n"


def write_page(path: Path, template: Path, **values: object) -> None:
    """Write the page of a template; the file holds its old content or all of the new."""
    write_atomically(path, render(template, **values))


def draw(figure: str, **values: object) -> Markup:
    """Return a figure: the macro of ``plots.html.j2`` with this name."""
    return Markup(getattr(_figures(), figure)(**values))


@cache
def _figures() -> TemplateModule:
    return _environment(HERE).get_template("plots.html.j2").module


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([HERE, folder]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script = (HERE / "plots.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": Markup(f"sha256-{digest}"),
        "relative": relative,
        "duration": format_duration,
        "metric": format_metric,
        "bytes": format_bytes,
    }
    return environment
