"""``python -m convtrain gradients RUN``: the numbers shown are those recorded."""

import csv
import io
import json
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from convtrain.__main__ import main
from convtrain.gradients import load
from convtrain.gradients.abbreviate import abbreviate
from convtrain.gradients.charts import BINS, draw_heatmap
from convtrain.gradients.layers import layer_of
from convtrain.gradients.reading import Norms, gather_norms, select_rows
from convtrain.gradients.record.store import Store
from convtrain.gradients.report import norm_table
from convtrain.text import format_scientific as short

NAMES = ("stem.weight", "stem.bias", "head.weight")
NAN, INF = float("nan"), float("inf")
RESNET = [
    f"stage_{s}.basic_{b}.residual_1.body.conv_{c}.{layer}"
    for s in range(1, 9)
    for b in range(1, 11)
    for c in (1, 2)
    for layer in ("conv2d_1.weight", "batchnorm2d_1.weight", "batchnorm2d_1.bias")
]


def write(run: Path, norms: Sequence[Sequence[float | None]], names: Sequence[str] = NAMES) -> Path:
    """Write a record of one row of norms a step; where it is None there was no gradient."""
    store = Store(run)
    for first in range(0, len(norms), 4):
        part = norms[first : first + 4]
        known = [
            (first + s + 1, name, norm)
            for s, row in enumerate(part)
            for name, norm in zip(names, row, strict=True)
            if norm is not None
        ]
        steps, parameters, values = zip(*known, strict=True)
        store.append("parameters", {"step": steps, "parameter": parameters, "norm": values})
        broken = [[n for n, v in zip(names, r, strict=True) if v in (INF, NAN)] for r in part]
        store.append(
            "steps",
            {
                "step": range(first + 1, first + len(part) + 1),
                "lr": [[0.1, 0.01]] * len(part),
                "skipped": [r[0] == INF for r in part],
                "norm": [sum(v * v for v in r if v is not None) ** 0.5 for r in part],
                "nonfinite": [len(b) for b in broken],
                "first_nonfinite": [b[0] if b else None for b in broken],
            },
        )
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Eight steps: the second is skipped, the bias thaws in the fourth and breaks in the sixth."""
    return write(
        tmp_path / "run",
        [
            [1.0, None, 0.02],
            [INF, None, INF],
            [2.0, None, 0.02],
            [3.0, 40.0, 0.02],
            [4.0, 50.0, 0.0],
            [5.0, NAN, 0.02],
            [600.0, 60.0, 0.02],
            [7.0, 70.0, 0.02],
        ],
    )


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out, which take longer than all else."""
    monkeypatch.setattr("convtrain.gradients.report.write_chart", lambda figure, path: path)


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["gradients", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def rows(printed: str) -> dict[str, list[str]]:
    """Return the cells of the table, by the first of each row."""
    lines = printed.split("\n\n")[1].splitlines()
    return {cells[0]: cells[1:] for line in lines if (cells := line.split())}


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_the_table_holds_the_numbers_of_the_record(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(shown(capsys, run))
    assert found["step"] == ["1", "3", "4", "5", "6", "7", "8", "median", "max", "NaN/inf"]
    weight, bias = found["stem.weight"], found["stem.bias"]
    assert weight[:7] == ["1.0e0", "2.0e0", "3.0e0", "4.0e0", "5.0e0", "6.0e2", "7.0e0"]
    assert weight[7:] == ["4.0e0", "6.0e2", "0"]
    assert bias[:7] == ["-", "-", "4.0e1", "5.0e1", "nan", "6.0e1", "7.0e1"]
    assert bias[7:] == ["5.5e1", "7.0e1", "1"]
    assert found["head.weight"][2:5] == ["2.0e-2", "0", "2.0e-2"]
    assert list(found)[2:] == list(NAMES), "in the order of the network, though the bias came late"


@pytest.mark.usefixtures("undrawn")
def test_a_layer_is_the_root_of_its_parameters_squares(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(shown(capsys, run, "--layers"))
    assert list(found)[2:] == ["stem", "head"]
    assert found["stem"][:5] == [
        "1.0e0",
        "2.0e0",
        short(1609**0.5),
        short(2516**0.5),
        "nan",
    ]
    exact = gather_norms(load(run)).by_layer()
    assert exact.values[3, 0] == pytest.approx(1609**0.5)
    assert not exact.finite[5, 0]


@pytest.mark.usefixtures("undrawn")
def test_the_lines_above_tell_of_the_whole_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    above = shown(capsys, run).split("\n\n")[0]
    name, overview, _, nonfinite, *_ = above.splitlines()
    assert name == f"run  {run}"
    assert overview == (
        "8 steps recorded (1 to 8), 1 of them skipped by the loss scaler, 1 with NaN or infinity, "
        "median gradient norm 45.1, largest 603 at step 7."
    )
    assert nonfinite.startswith("Nonfinite in 1 of 8 steps, first at step 6: ")
    assert "in the gradient of stem.bias" in nonfinite


@pytest.mark.usefixtures("undrawn")
def test_parameters_are_chosen_by_globs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(shown(capsys, run, "--parameters", "*.weight"))
    assert list(found)[2:] == ["stem.weight", "head.weight"]
    found = rows(shown(capsys, run, "--parameters", "*.bias", "--parameters", "head*"))
    assert list(found)[2:] == ["stem.bias", "head.weight"]


def printed_table(norms: Norms, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(norm_table(norms, width))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [6, 62, 480])
@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_table_fits_the_terminal(width: int, count: int) -> None:
    values = np.full((100, count), 1.4e-45, np.float32)
    values[-1, 0] = np.nan
    steps = np.arange(1, 100_001, 1000)
    norms = Norms(
        tuple(RESNET[:count]), steps, values, np.ones(values.shape, bool), steps < 0, steps > 0
    )
    lines = printed_table(norms, width)
    assert len(lines) == count + 2
    assert max(map(len, lines)) <= width
    names = [line[: line.index("  ")] for line in lines[2:]]
    assert all("1.4e-45" in line for line in lines[2:])
    if width >= 80:
        assert len(set(names)) == count, "folded names can be told apart"


def test_colours_follow_the_row_and_what_is_broken_is_red() -> None:
    values = np.array([[1, 1], [1, 1], [20, 1], [300, 1], [0.001, np.nan]], np.float32)
    norms = Norms(
        ("a", "b"),
        np.arange(1, 6),
        values,
        np.ones((5, 2), bool),
        np.zeros(5, bool),
        np.ones(5, bool),
    )
    columns = norm_table(norms, 100).columns
    styles = [[str(cell.style) for cell in column.cells] for column in columns[1:6]]
    assert [style[0] for style in styles] == ["", "", "yellow", "bold red", "bold blue"]
    assert [style[1] for style in styles] == ["", "", "", "", "bold red"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1.0e0"), (0.00123, "1.2e-3"), (1.4e-45, "1.4e-45"), (3e38, "3.0e38"),
     (NAN, "nan"), (INF, "inf"), (-INF, "-inf")],
)  # fmt: skip
def test_a_number_is_short(value: float, text: str) -> None:
    assert short(value) == text


def test_a_fold_keeps_names_apart() -> None:
    names = ["stage_1.basic.conv.weight", "stage_2.basic.conv.weight", "head"]
    assert abbreviate(names, 25) == names
    for width in (10, 14, 20):
        folded = abbreviate(names, width)
        assert len(set(folded)) == 3
        assert max(map(len, folded)) == width
        assert folded[2] == "head"


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [("stem.weight", "stem"), ("a.b.bias", "a.b"), ("scale", "scale"),
     ("stem.parametrizations.weight.original0", "stem")],
)  # fmt: skip
def test_a_parameter_belongs_to_a_layer(parameter: str, layer: str) -> None:
    assert layer_of(parameter) == layer


# --- the pictures ---------------------------------------------------------------------------------


def test_pictures_are_drawn(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys, run, "--out", tmp_path / "pictures" / "of it")
    for name in ("heatmap", "flow"):
        path = tmp_path / "pictures" / "of it" / f"{name}.png"
        assert f"{name:8}  {path}" in printed
        picture = imread(path)
        assert 300 < min(picture.shape[:2]) <= max(picture.shape[:2]) < 3000
        assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20
    assert not (run / "gradients" / "flow.png").exists()


def test_one_broken_step_among_thousands_is_seen() -> None:
    values = np.ones((5000, 2), np.float32)
    values[3333, 1] = np.inf
    values[100:200, 0] = 0
    present = np.ones(values.shape, bool)
    present[:50] = False
    figure = draw_heatmap(
        Norms(("a", "b"), np.arange(1, 5001), values, present, ~present[:, 0], present[:, 0])
    )
    kinds, logarithms = (image.get_array() for image in figure.axes[0].images)
    assert logarithms.shape == kinds.shape == (2, BINS)
    absent, zero, broken = (np.argwhere(kinds == kind).tolist() for kind in range(3))
    assert broken == [[1, int(3333 * BINS / 5000)]]
    assert absent == [[row, place] for row in (0, 1) for place in range(4)]
    assert zero == [[0, place] for place in range(8, 16)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["no gradient", "exactly zero", "NaN or infinity"]


@pytest.mark.parametrize("count", [62, 480])
def test_labels_do_not_overlap(count: int) -> None:
    values = np.ones((3, count), np.float32)
    figure = draw_heatmap(
        Norms(
            tuple(RESNET[:count]),
            np.arange(1, 4),
            values,
            values > 0,
            np.zeros(3, bool),
            np.ones(3, bool),
        )
    )
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
    assert len(boxes) >= 60
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))


@pytest.mark.parametrize(
    "norms", [[[1.0]], [[NAN]] * 3, [[0.0]] * 3, [[1e-45], [3e38]]], ids=["one", "nan", "0", "far"]
)
def test_odd_records_are_drawn(
    tmp_path: Path, norms: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = shown(capsys, write(tmp_path / "run", norms, ["w"]))
    assert rows(printed)["w"][0] == short(float(np.float32(norms[0][0])))


# --- CSV ------------------------------------------------------------------------------------------


def test_csv_holds_the_whole_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = shown(capsys, run, "--csv", tmp_path / "norms.csv")
    assert printed == f"21 rows of parameters in {tmp_path / 'norms.csv'}\n"
    with (tmp_path / "norms.csv").open(newline="") as file:
        found = [(int(r["step"]), r["parameter"], float(r["norm"])) for r in csv.DictReader(file)]
    table = load(run)
    expected = zip(*(table[c].to_pylist() for c in ("step", "parameter", "norm")), strict=True)
    for one, other in zip(found, expected, strict=True):
        assert one[:2] == other[:2]
        assert np.float32(one[2]) == np.float32(other[2]) or np.isnan(one[2]) == np.isnan(other[2])
    assert not (run / "gradients" / "flow.png").exists()


def test_csv_goes_to_standard_output_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys, run, "--csv", "-", "--parameters", "*.bias")
    found = list(csv.DictReader(io.StringIO(printed)))
    assert [r["step"] for r in found] == ["4", "5", "6", "7", "8"]
    assert [r["norm"] for r in found] == ["40", "50", "nan", "60", "70"]


def test_lists_are_json_and_absent_is_empty(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(run).append(
        "histograms",
        {"step": [1, 1], "parameter": ["stem.weight", "stem.bias"], "counts": [[1, 2], None]},
    )
    found = list(csv.DictReader(io.StringIO(shown(capsys, run, "--csv", "-", "--table", "steps"))))
    assert [json.loads(r["lr"]) for r in found] == [[0.1, 0.01]] * 8
    assert [r["first_nonfinite"] for r in found][:3] == ["", "stem.weight", ""]
    printed = shown(capsys, run, "--csv", "-", "--table", "histograms")
    assert [r["counts"] for r in csv.DictReader(io.StringIO(printed))] == ["[1, 2]", ""]


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["runn"], "no such directory; did you mean run?"),
        (["."], "not a run, whose directory holds config.yaml and gradients/, such as run"),
        (["run/gradients"], "give the run's directory"),
        (["run/gradients/steps"], "not a run"),
        (["empty"], "empty: no gradient record"),
        (["run", "--parameters", "*.wieght"], "did you mean *.weight?"),
        (["run", "--parameters", "stam.*"], "did you mean stem.*?"),
        (["run", "--parameters", "9"], "none of the record's 3 parameters, such as stem.weight, "),
        (["run", "--parameters", "*.bias", "--parameters", "no"], "--parameters no: "),
        (["run", "--csv", "no/x.csv"], "--csv no/x.csv: cannot be written (No such file"),
        (["run", "--csv", "run"], "--csv run: cannot be written (Is a directory)"),
        (["run", "--csv", "-", "--table", "layers"], "no gradient record with a table of layers"),
        (["run", "--csv", "-", "--table", "steps", "--parameters", "*"], "has no parameters"),
        (["run", "--csv", "-", "--layers"], "leave out --layers"),
        (["run", "--table", "steps"], "add --csv FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(run.parent)
    Path("empty").mkdir()
    Path("empty/config.yaml").write_text("{}")
    assert main(["gradients", *arguments]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_pictures_that_cannot_be_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradients", str(run), "--out", "/dev/null/pictures"]) == 2
    printed = capsys.readouterr().err
    assert "choose another folder with --out DIR" in printed
    assert printed.count("\n") == 1


@pytest.mark.usefixtures("undrawn")
def test_a_torn_part_is_a_warning(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in ("steps", "parameters"):
        (part,) = (run / "gradients" / table).glob("*08.parquet")
        part.write_bytes(part.read_bytes()[:-9])
    assert main(["gradients", str(run)]) == 0
    printed = capsys.readouterr()
    assert [line[:9] for line in printed.err.splitlines()] == ["warning: "] * 2
    assert "000000000005-000000000008.parquet: left out" in printed.err
    assert "4 steps recorded (1 to 4)" in printed.out


@pytest.mark.usefixtures("undrawn")
def test_norms_without_their_steps(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in (run / "gradients" / "steps").iterdir():
        part.unlink()
    printed = shown(capsys, run)
    assert "The table of steps is missing or cannot be read." in printed
    assert rows(printed)["stem.weight"][1] == "inf"


def test_looking_needs_no_torch(run: Path, python: str) -> None:
    code = (
        "import sys\n"
        "from convtrain.__main__ import main\n"
        f"assert main(['gradients', {str(run)!r}]) == 0\n"
        f"assert main(['gradients', {str(run)!r}, '--csv', '-']) == 0\n"
        "assert not {'torch', 'pytorch_lightning'} & set(sys.modules)\n"
    )
    subprocess.run([python, "-c", code], check=True, capture_output=True)
    assert {p.name for p in (run / "gradients").glob("*.*")} == {"heatmap.png", "flow.png"}
    assert load(run).num_rows == 21, "pictures do not disturb the record they lie in"


def test_a_selection_is_of_names_not_of_parts_of_names(run: Path) -> None:
    assert set(select_rows(load(run), ["stem.*"])["parameter"].to_pylist()) == set(NAMES[:2])
    assert select_rows(load(run), []).num_rows == 21
