"""Take the pictures of a run: each function writes one PNG."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from PIL import Image
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from docs.generate.shell import Shell
from tests.browser import Browser

COLUMNS = 118  # of the terminal
PATIENCE = 90.0  # seconds for TensorBoard to load
SECONDS_TO_DRAW = 5.0
CURVES = 6
WIDTH = 1200  # pixels
SPACE = 12  # pixels above a heading or a plot
HEADINGS = """
  [...document.querySelectorAll("h2, figure")].map(
    e => [e.innerText.split("\\n")[0], e.getBoundingClientRect().top])
"""
ERASE = "\r\x1b[1A\x1b[2K"  # the bar is erased before the summary is printed
TERMINAL = """<!doctype html><meta charset="utf-8"><style>{stylesheet}
body {{ margin: 0; padding: 14px 18px; background: #fff; color: {foreground}; }}
pre {{ margin: 0; font: 14px/1.45 "DejaVu Sans Mono", Menlo, Consolas, monospace; }}
</style><pre>{code}</pre>"""
RUNS = ("sgd_momentum optimizer.lr=0.03", "adamw optimizer.lr=0.003")  # that TensorBoard compares
TAGS = "^(train|val)/(loss|acc|f1)$|^lr$"
TIDY = """
  [...document.querySelectorAll("mat-checkbox")]
    .find(e => e.innerText.includes("step selection")).querySelector("input").click();
  document.querySelector('[aria-label="Close side pane"]').click();
"""
"""JavaScript that hides the table below each curve and the settings."""


def terminal(shell: Shell, browser: Browser, command: str, to: Path) -> None:
    """Picture a command and what it prints, its bar as it was last."""
    written = shell.run_in_terminal(command, columns=COLUMNS).replace("\r\n", "\n")
    bar, _, summary = written.rpartition(ERASE)
    last = bar.rpartition("\r")[2].partition("\x1b[?25h")[0].removeprefix("\x1b[2K").strip("\n")
    shown = Text.from_ansi("\n".join([f"$ {command}", last, summary.strip("\r\n")]))
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(shown)
    with TemporaryDirectory() as folder:
        page = Path(folder) / "terminal.html"
        html = console.export_html(theme=DEFAULT_TERMINAL_THEME, code_format=TERMINAL)
        page.write_text(html, encoding="utf-8")
        with browser.open(page, width=1020, height=10, scale=1.5) as opened:
            opened.screenshot(to)


def heat_map(shell: Shell, run: str, to: Path) -> None:
    shell.run(f"convtrain gradients {run}")
    with Image.open(shell.folder / run / "gradients" / "heatmap.png") as drawn:
        drawn.convert("RGB").save(to)


def tensorboard(shell: Shell, browser: Browser, to: Path) -> None:
    """Train the digits twice, and picture the curves of both in TensorBoard."""
    for optimizer in RUNS:
        name = optimizer.split()[0]
        shell.run(f"convtrain train hydra.run.dir=both/{name} metrics=f1 optimizer={optimizer}")
    query = f"?tagFilter={quote(TAGS)}&smoothing=0#timeseries"
    with (
        _served(shell, "both") as address,
        browser.open(address + query, width=1400, height=860) as page,
    ):
        until = time.monotonic() + PATIENCE
        while page.evaluate("document.querySelectorAll('line-chart').length") < CURVES:
            if time.monotonic() > until:
                raise RuntimeError("TensorBoard has drawn no curves")
            time.sleep(0.5)
        page.evaluate(f"(() => {{ {TIDY} }})()")
        time.sleep(SECONDS_TO_DRAW)
        page.screenshot(to)


@contextmanager
def _served(shell: Shell, run: str) -> Iterator[str]:
    """Start TensorBoard on a free port; give its address."""
    process = shell.start(f"tensorboard --logdir {run} --port 0 --host localhost --load_fast=false")
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "http://" in line:
                yield "http://" + line.partition("http://")[2].split()[0]
                break
        else:
            raise RuntimeError("TensorBoard has not started")
    finally:
        process.terminate()
        process.wait()


def report(shell: Shell, browser: Browser, run: str, first: str, last: str, to: Path) -> None:
    """Picture a report from the title ``first``, or its top, down to the title ``last``."""
    shell.run(f"convtrain report {run}")
    with browser.open(shell.folder / run / "report.html", width=WIDTH, height=900) as page:
        places = dict(page.evaluate(HEADINGS))
        page.screenshot(to)
    with Image.open(to) as whole:
        top, bottom = places.get(first, SPACE) - SPACE, places[last] - SPACE
        cut = whole.convert("RGB").crop((0, int(top), WIDTH, int(bottom)))
    cut.save(to)


def quantise(path: Path, most: int) -> int:
    """Reduce a picture's colours until its file has at most ``most`` bytes; return its size."""
    with Image.open(path) as read:
        picture = read.convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if (size := path.stat().st_size) <= most:
            break
    return size
