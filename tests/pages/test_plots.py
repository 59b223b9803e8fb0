"""What pages draw is where the numbers say, in colours that can be told apart, and never markup."""

import base64
import io
import itertools
import json
import math
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from convtrain.pages.bars import bars, stacked
from convtrain.pages.heat_map import confusion_matrix, heat_map
from convtrain.pages.images import Picture, image_grid
from convtrain.pages.page import HERE, render
from convtrain.pages.plots import MAX_POINTS, Series, plot
from convtrain.pages.scales import Axis, scale
from tests.pages.parsed import Parsed

INJECTED = "</script></figure><script>alert(1)</script>'\"><img src=x onerror=alert(2)>"
STEP, VALUE = Axis("step", low=0, high=100), Axis("loss", low=0, high=4)


def drawn(*series: Series, x: Axis = STEP, y: Axis = VALUE) -> Parsed:
    return Parsed(str(plot("title", series, x, y)))


def pieces(path: str) -> list[list[tuple[float, float]]]:
    """Return the lines of an SVG path, in thousandths of the area."""
    points = [re.findall(r"[\d.]+", piece) for piece in path.split("M")[1:]]
    return [list(itertools.pairwise(map(float, piece)))[::2] for piece in points]


def pixels(page: Parsed) -> np.ndarray:
    (uri,) = page.attributes("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_a_line_is_where_its_numbers_say_and_has_gaps() -> None:
    values = [4.0, 1.0, math.nan, 2.0, 0.0]
    page = drawn(Series("a", [0, 10, 20, 50, 100], values))
    (path,) = page.attributes("d")
    assert pieces(path) == [[(0, 0), (100, 750)], [(500, 500), (1000, 1000)]]
    places = list(zip(page.attributes("cx"), page.attributes("cy"), strict=True))
    assert places[1] == ("10.0%", "75.0%")
    (data,) = page.attributes("data-plot")
    assert json.loads(data)[1][0][2:] == [[0, 10, 20, 50, 100], [4, 1, None, 2, 0]]


def test_a_logarithmic_axis_leaves_out_what_has_no_logarithm() -> None:
    y = Axis("loss", log=True, low=0.01, high=100)
    page = drawn(Series("a", [0, 25, 50, 100], [100.0, 1.0, 0.0, 0.01]), y=y)
    (path,) = page.attributes("d")
    assert pieces(path) == [[(0, 0), (250, 500)], [(1000, 1000)]]
    for tick in ("0.01", "0.1", "1", "10", "100"):
        assert f"{tick}\n" in page.text


def test_a_long_series_keeps_its_extremes_and_its_gaps() -> None:
    values = np.sin(np.arange(100_000) / 9e3)
    values[54_321], values[77_777], values[60_000] = 9, -9, np.nan
    (data,) = drawn(Series("a", np.arange(100_000), values)).attributes("data-plot")
    _, _, x, y = json.loads(data)[1][0]
    assert len(x) < 1.6 * MAX_POINTS
    assert dict(zip(x, y, strict=True))[54_321] == 9
    assert min(v for v in y if v is not None) == -9
    assert y.count(None) == 1
    assert (x[0], x[-1]) == (0, 99_999)


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [(0, 1, False, "0 0.2 0.4 0.6 0.8 1"),
     (0, 30_000, False, "0 5,000 10,000 15,000 20,000 25,000 30,000"),
     (0.012, 0.013, False, "0.012 0.0122 0.0124 0.0126 0.0128 0.013"), (2, 30, True, "2 5 10 20"),
     (1e-9, 1, True, "1e-9 1e-7 1e-5 0.001 0.1"), (5, 5, False, ""),
     (3e-9, 4e-9, False, "3e-9 3.2e-9 3.4e-9 3.6e-9 3.8e-9 4e-9")],
)  # fmt: skip
def test_ticks_are_round_numbers(low: float, high: float, log: bool, expected: str) -> None:
    found = scale(Axis("x", log=log), [np.array([low, high])], padded=False)
    ticks = found.ticks()
    if expected:
        assert " ".join(tick.text for tick in ticks) == expected
    assert len(ticks) > 1
    for at, text in ticks:
        value, ends = float(text.replace(",", "")), [found.low, found.high]
        if log:
            value, *ends = (math.log(each) for each in (value, *ends))
        assert at == pytest.approx((value - ends[0]) / (ends[1] - ends[0]), abs=1e-6)
        assert -1e-6 <= at <= 1 + 1e-6


@pytest.mark.parametrize(
    "values", [[], [math.nan], [0.5], [math.inf, 1.0], [0.0, 0.0], [1e308, -1e308, 5e-324]]
)
def test_few_or_odd_values_are_drawn_too(values: list[float]) -> None:
    for y in (Axis("y"), Axis("y", log=True), Axis("y", percent=True)):
        for kind in ("line", "dots", "bars", "means"):
            page = drawn(Series("a", range(len(values)), values, kind=kind), x=Axis("x"), y=y)
            assert "nan" not in "".join(page.attributes("d") + page.attributes("style"))
    heat_map("t", np.array([values or [0.0]]), Axis("x"), Axis("y"), label="v", log=True)


def test_a_heat_map_has_the_colours_of_viridis() -> None:
    values = 10.0 ** np.linspace(-3, 0, 64).reshape(2, 32)
    kinds = np.full(values.shape, -1)
    kinds[0, 3], values[0, 3] = 1, np.nan
    names = (("absent", "#d4d4d4"), ("NaN", "#ff1f5b"))
    x, y = Axis("step", low=1, high=33), Axis("layer", labels=["a", "b"])
    figure = heat_map("t", values, x, y, label="norm", log=True, kinds=kinds, kind_names=names)
    shown = pixels(Parsed(str(figure)))
    assert tuple(shown[0, 3]) == (0xFF, 0x1F, 0x5B, 255)
    known = np.isfinite(values)
    low, high = np.log10(np.percentile(values[known], [0.5, 99.5]))
    places = ((np.log10(values[known]) - low) / (high - low)).clip(0, 1)
    expected = 255 * matplotlib.colormaps["viridis"](places)
    assert np.abs(shown[known] - expected).max() < 6  # between the places that are listed
    assert "NaN" in Parsed(str(figure)).text
    assert "absent" not in Parsed(str(figure)).text  # there is none


def test_a_confusion_matrix_writes_each_count_in_its_place() -> None:
    counts = np.array([[90, 10, 0], [1, 99, 0], [0, 50, 50]])
    page = Parsed(str(confusion_matrix("t", counts, ["a", "b", "c"])))
    written = {
        given["style"]: given["class"]
        for _, given in page.tags
        if (given.get("class") or "").split()[:1] == ["count"]
    }
    assert written["left:50.0%;top:83.33%"] == "count strong"  # class c, predicted as b
    assert written["left:83.33%;top:50.0%"] == "count zero"
    assert "90" in page.text
    shown = pixels(page)
    opacity = shown[..., 3] / 255
    np.testing.assert_allclose(opacity.diagonal(), [0.9, 0.99, 0.5], atol=0.003)
    assert opacity[2, 1] > opacity[0, 1] > opacity[1, 0] > opacity[0, 2] == 0
    assert tuple(shown[0, 0, :3]) != tuple(shown[0, 1, :3])


def test_pictures_and_bars(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 6), dtype=np.uint8)
    page = Parsed(str(image_grid("t", [Picture(image, "cat, not dog", "97%")])))
    assert (pixels(page) == image.transpose(1, 2, 0)).all()
    assert "cat, not dog97%" in page.text.replace("\n", "")
    page = Parsed(
        str(bars("t", [("a", 0.25), ("b", 1.0), ("c", math.nan)], Axis("recall", high=1)))
    )
    assert page.attributes("style") == [
        "width:25.0%",
        "width:100.0%",
        "width:0%",
    ]
    page = Parsed(str(stacked("t", [("a", 3), ("b", 1)], lambda seconds: f"{seconds} s")))
    assert page.attributes("style") == ["flex:75.0 0 0", "flex:25.0 0 0"]
    assert "3 s75%" in "".join(page.text.split(" ")).replace("3s", "3 s")


def test_names_are_text_in_every_figure(tmp_path: Path) -> None:
    x, y = Axis(INJECTED, labels=[INJECTED, "b"]), Axis(INJECTED)
    picture = Picture(np.zeros((3, 4, 4), np.uint8), INJECTED, INJECTED)
    figures = [
        plot(INJECTED, [Series(INJECTED, [0, 1], [1, 2])], x, y, note=INJECTED),
        plot(INJECTED, [Series(INJECTED, [1, 2], [0, 1])], y, x),
        heat_map(INJECTED, np.ones((2, 2)), x, x, label=INJECTED, note=INJECTED,
                 kinds=np.array([[0, -1], [-1, -1]]), kind_names=[(INJECTED, "#000000")]),
        confusion_matrix(INJECTED, np.eye(2, dtype=int), [INJECTED, "b"]),
        bars(INJECTED, [(INJECTED, 1.0)], y),
        stacked(INJECTED, [(INJECTED, 1.0)], lambda _: INJECTED),
        image_grid(INJECTED, [picture]),
    ]  # fmt: skip
    template = tmp_path / "all.html.j2"
    template.write_text(
        '{% extends "base.html.j2" %}{% import "macros.html.j2" as ui %}{% block title %}{{ text }}'
        "{% endblock %}{% block content %}{{ ui.tile(text, text) }}{{ ui.command(text, text) }}"
        "{{ ui.badge(text) }}{{ ui.table([(text, true)], [[text]], title=text) }}"
        "{% for each in figures %}{{ each }}{% endfor %}{% endblock %}"
    )
    page = Parsed(render(template, text=INJECTED, figures=figures))
    assert page.leaving(tmp_path) == []
    assert page.unclosed == []
    assert len(page.scripts) == 1
    tags = [tag for tag, _ in page.tags]
    assert tags.count("img") == 3  # heat map, matrix, picture
    assert page.text.count(INJECTED) > 25


# --- the style sheet ------------------------------------------------------------------------------

STYLE = (HERE / "style.css").read_text()
BLINDNESS = {  # Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    srgb = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(XYZ @ rgb.clip(0.001, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(scheme: int) -> None:
    block = re.findall(r"--ink:.*?\}", STYLE, flags=re.DOTALL)[scheme]
    colours = {name: linear(code) for name, code in re.findall(r"--(\w+): #(\w+)", block)}

    def contrast(name: str) -> float:
        a, b = sorted(XYZ[1] @ colours[each] for each in (name, "paper"))
        return float((b + 0.05) / (a + 0.05))

    lines = [f"s{index}" for index in range(1, 8)]
    assert min(map(contrast, lines)) > 2.8
    assert min(map(contrast, ("ink", "soft", "good", "bad", "accent"))) > 4.5  # WCAG AA, for text
    for matrix in BLINDNESS.values():
        seen = [lab(np.array(matrix) @ colours[name]) for name in lines]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 11
