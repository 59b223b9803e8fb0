"""The pages in a real browser: nothing is cut off, asked for, run or complained about."""

import json
from pathlib import Path

import numpy as np
import pytest

from convtrain.__main__ import main
from convtrain.pages.bars import bars, stacked
from convtrain.pages.heat_map import confusion_matrix, heat_map
from convtrain.pages.images import Picture, image_grid
from convtrain.pages.page import write_page
from convtrain.pages.plots import Series, plot
from convtrain.pages.scales import Axis
from convtrain.run.directory import Run
from tests.browser import WIDTHS, Browser, needs_browser
from tests.use.test_comparison import leave_run

pytestmark = [pytest.mark.slow, needs_browser]
modes = pytest.mark.parametrize(
    ("width", "dark"), [(width, dark) for width in WIDTHS for dark in (False, True)]
)
INJECTED = "</script><script>alert(1)</script>'\"><img src=x onerror=alert(2)>"
CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    INJECTED,
]
TEMPLATE = """{% extends "base.html.j2" %}
{% import "macros.html.j2" as ui %}
{% block title %}{{ text }}{% endblock %}
{% block head %}<h1>{{ text }}</h1>
{{ ui.command("python train.py data.root=" ~ 5 * text, text) }}{% endblock %}
{% block content %}
{% call ui.tiles() %}{% for _ in range(4) %}{{ ui.tile("98.61%", text) }}{% endfor %}{% endcall %}
<div class="plots">{% for each in figures %}{{ each }}{% endfor %}</div>
<div class="plots wide">{{ figures[0] }}</div>
{{ ui.table([(text, false), (text, true)], [[text, 1.5], [5 * text, none]], title=text) }}
{{ ui.tabs("tabs", [("one", figures[1]), ("two", figures[2])]) }}
{% endblock %}
"""


@pytest.fixture(scope="module")
def page_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("page"), np.random.default_rng(0)
    steps = np.arange(1, 30_001, 10)
    layers = [f"stage{i}.block{j}.conv2d_1" for i in range(4) for j in range(3)]
    norms = 10.0 ** random.normal(-1, 1, (12, 300))
    many = [Series(f"run {i} {INJECTED}", [0, 50, 100], [0.2, 0.1 * i, i]) for i in range(12)]
    counts = random.integers(0, 2000, (10, 10))
    image = random.integers(0, 256, (3, 32, 32), dtype=np.uint8)
    step, percent = Axis("step", low=0), Axis("accuracy", percent=True)
    figures = [
        plot("Loss", [Series("train", steps, 2 / steps), Series("val", [1e3, 2e4], [0.5, 0.25])],
             step, Axis("loss (nats)", log=True)),
        plot("Many", many, Axis("step"), Axis("val/acc")),
        plot("Rate", [Series("jobs", [1e-4, 1e-4, 0.1, 0.3], [0.1, 0.2, 0.5, 0.6], kind="dots")],
             Axis("optimizer.lr", log=True, ticks=[1e-4, 0.1, 0.12, 0.3]), percent),
        plot("Names", [Series("mean", range(10), range(10), kind="means")],
             Axis("class", labels=CLASSES), percent),
        plot("Calibration", [Series("right", [0.25, 0.75], [0.2, 0.9], kind="bars")],
             Axis("confidence", low=0, high=1), percent, square=True),
        plot("Flow", [Series("mean", norms.mean(1), range(12))],
             Axis("norm", log=True), Axis("layer", labels=layers)),
        heat_map("Norms", norms, Axis("step", low=1, high=301), Axis("layer", labels=layers),
                 label="gradient norm (L2)", log=True),
        confusion_matrix("Confusion", counts, CLASSES, note=INJECTED),
        bars("Recall", [(name, 0.5) for name in CLASSES], percent),
        stacked("Time", [("training", 8.0), (INJECTED, 2.0)], lambda seconds: f"{seconds} s"),
        image_grid("Mistakes", [Picture(image, f"{name}, not cat", "97.1%") for name in CLASSES]),
    ]  # fmt: skip
    (folder / "all.html.j2").write_text(TEMPLATE)
    write_page(folder / "all.html", folder / "all.html.j2", text=INJECTED, figures=figures)
    return folder / "all.html"


@modes
def test_every_figure(page_of_all: Path, browser: Browser, width: int, dark: bool) -> None:
    with browser.open(page_of_all, width=width, dark=dark) as page:
        assert page.problems() == []
        assert page.evaluate("document.title") == INJECTED
        colour = page.evaluate("getComputedStyle(document.body).color")
        assert (min(map(int, colour[4:-1].split(","))) > 150) == dark
        columns = page.evaluate(
            "getComputedStyle(document.querySelector('.plots')).gridTemplateColumns"
        )
        assert len(columns.split()) == (1 if width == 400 else 3)
        tabs = "[...document.querySelectorAll('.panel')].map(panel => panel.offsetHeight > 0)"
        assert page.evaluate(tabs) == [True, False]
        page.evaluate("document.querySelector('#tabs-2').click()")
        assert page.evaluate(tabs) == [False, True]
        assert page.problems() == []


@pytest.mark.parametrize("width", WIDTHS)
def test_values_at_the_pointer_and_at_the_keys(
    page_of_all: Path,
    browser: Browser,
    width: int,
) -> None:
    with browser.open(page_of_all, width=width) as page:
        figure = "figure[data-plot]"
        step, *shown = page.hover(figure, 2 / 3, 0.5).split("\n")
        reached = float(step.removeprefix("step: ").replace(",", ""))
        assert abs(reached - 20_000) < 200
        assert shown == ["train", shown[1], "val", "0.25"]
        assert float(shown[1]) == pytest.approx(2 / reached, rel=0.02)
        assert page.problems() == []
        page.evaluate(f"document.querySelector('{figure} .area').focus()")
        page.press("ArrowLeft")
        told = page.evaluate(f"document.querySelector('{figure} .tip').innerText")
        assert float(told.split("\n")[0].removeprefix("step: ").replace(",", "")) < reached
        page.press("Escape")
        assert page.evaluate(f"document.querySelector('{figure} .tip').hidden")
        shown = page.hover("figure[data-cells]:has(.scalebar)", 0.999, 0.01).split("\n")
        assert shown[:2] == ["layer: stage0.block0.conv2d_1", "step: 300"]
        assert shown[2].startswith("gradient norm (L2): ")
        shown = page.hover("figure[data-cells]:has(.count)", 0.05, 0.95).split("\n")
        assert shown[:2] == [f"true class: {INJECTED}", "predicted class: airplane"]
        assert page.problems() == []


@modes
def test_the_page_of_a_sweep(
    tmp_path: Path, browser: Browser, width: int, dark: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for number, network in enumerate(("lenet", INJECTED, "a_network_with_a_long_name" * 4)):
        for seed in (1, 2, 3):
            run = Run(tmp_path / f"network-{number}_seed-{seed}")
            run.begin({}, [f"network={network}", f"seed={seed}", f"optimizer.lr=0.{seed}"], {})
            if seed == number:
                run.fail(f"no memory {INJECTED}")
            else:
                accuracy = 0.9 + seed / 100 - number / 50
                run.finish(
                    {"val/acc": accuracy, "wall_time_seconds": 75.0, "gradients": ["a" * 90]}
                )
                run.report.write_text("<!doctype html><title>report</title>")
    record = {"jobs": 9, "metric": "val/acc", "command": f"python train.py -m network={INJECTED}"}
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    assert main(["sweep", str(tmp_path)]) == 0
    with browser.open(tmp_path / "results.html", width=width, dark=dark) as page:
        assert page.problems() == []
        assert page.evaluate("document.querySelectorAll('a.report').length") == 7
        shown = page.hover("figure[data-plot]:last-of-type", 0.01, 0.5)
        assert shown.startswith("optimizer.lr: 0.1\njobs\n")


@modes
def test_the_page_of_several_runs(
    tmp_path: Path, browser: Browser, width: int, dark: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folders = [tmp_path / f"run {number} {'name' * 9}" for number in range(12)]
    for number, folder in enumerate(folders):
        leave_run(folder, 1 + number, 0.1 * (number + 1), finished=number % 3 > 0, data=INJECTED,
                  long={f"key{i}": f"{number}{INJECTED}" for i in range(4)})  # fmt: skip
    assert main(["compare", *map(str, folders)]) == 0
    with browser.open(tmp_path / "compare.html", width=width, dark=dark) as page:
        assert page.problems() == []
        assert page.hover("figure[data-plot]", 0.99, 0.5).startswith("optimiser steps: 48\n")
        page.evaluate("document.querySelector('#curves-2').click()")
        assert page.hover(".panel:last-of-type figure", 0.99, 0.5).startswith("epochs: 12\n")
        assert page.problems() == []


def test_the_policy_stops_what_is_not_escaped(tmp_path: Path, browser: Browser) -> None:
    template = tmp_path / "open.html.j2"
    template.write_text(TEMPLATE.replace("<h1>{{ text }}", "<h1>{{ text | safe }}"))
    figures = [bars("t", [("a", 1.0)], Axis("x"))] * 3
    text = "<script>alert(1)</script><img src='https://example.invalid/a.png' onerror='alert(2)'>"
    write_page(tmp_path / "open.html", template, text=text, figures=figures)
    with browser.open(tmp_path / "open.html") as page:
        assert page.evaluate("document.querySelectorAll('h1 script, h1 img').length") == 2
        assert page.dialogs == []
        assert all("Content Security Policy" in error for error in page.errors), page.errors
        assert len(page.errors) >= 2


def test_a_browser_that_asks_complains_and_is_cut_off_is_noticed(
    tmp_path: Path,
    browser: Browser,
) -> None:
    (tmp_path / "bad.html").write_text(
        "<main><img src='https://example.invalid/a.png'><script>console.error('odd'); alert('hi');"
        "throw new Error('wrong')</script>"
        "<div style='width:50px;overflow:hidden;white-space:nowrap'>a text that is too long</div>"
        "<p style='width:3000px'>wide</p></main>"
    )
    with browser.open(tmp_path / "bad.html", width=400) as page:
        told = "\n".join(page.problems())
    for part in (
        "request: https://example",
        "error: ",
        "odd",
        "wrong",
        "dialog: hi",
        "cut off",
        "3",
    ):
        assert part in told
