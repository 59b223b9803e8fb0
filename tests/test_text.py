"""Names that users choose are text, whatever a library would make of them, in every output."""

import csv
import json
import re
import warnings
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from matplotlib.figure import Figure
from matplotlib.text import Text
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convtrain.__main__ import main
from convtrain.command.job_config import resolve_config
from convtrain.command.resume import read_config
from convtrain.config.schema import Config
from convtrain.data.images import Images
from convtrain.gradients.charts import draw_flow, draw_heatmap
from convtrain.gradients.reading import Norms
from convtrain.gradients.record.tensorboard import graph_as_markdown
from convtrain.models.parameters import apply_to_parameters
from convtrain.run.directory import Run
from convtrain.run.report import print_report
from convtrain.run.result import Result
from convtrain.sweeps.callback import close_sweep
from convtrain.sweeps.effects import draw_effect
from convtrain.sweeps.results import Job, Sweep
from convtrain.text import as_hydra_value, as_markdown, as_omegaconf, make_console, matches
from convtrain.training.callbacks.pictures import prediction_grid
from convtrain.training.loggers.tensorboard import TensorBoard
from tests.conftest import compose
from tests.pages.parsed import Parsed

AWKWARD = {
    "rich closing tag": "a[/b]c",
    "rich style": "[red]x",
    "rich link": "[link=x]y[/link]",
    "emoji code": ":smile:",
    "mathtext": r"$\frac{1$",
    "formula": "a $x_1$ b",
    "two dollars": "$$",
    "TeX": r"\alpha_1 & 50% #2",
    "HTML": "<b>&amp;\"'",
    "script": "</span><script>x</script>",
    "comment": "-->",
    "YAML": "- a: {b: [c]} # d",
    "YAML number": "1e5",
    "YAML null": "null",
    "YAML date": "2020-01-01",
    "interpolation": "${seed}",
    "resolver": "${oc.env:HOME}",
    "escaped interpolation": r"\${seed}",
    "network value": "$width",
    "regular expression": "(a+)*[",
    "glob": "a[0-9]*?",
    "shell": "$(id) `id`; a && b > c",
    "quotes": 'it\'s "so"',
    "Hydra": "a,b=c,(d),{e}",
    "Hydra sweep": "choice(1,2)",
    "backslash": "a\\",
    "Markdown": "| *a* | _b_ | `c` |",
    "spaces": "  a  b ",
    "letters": "é日本 ß😀",
    "percent": "%s %(x)s %j {0}",
    "URL": "a#b?c%20",
}
texts = pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())


# --- the functions, one a library -----------------------------------------------------------------


@texts
def test_a_console_shows_it_in_lines_titles_headers_and_cells(text: str) -> None:
    from rich.table import Table

    file = StringIO()
    table = Table(title=text, title_justify="left", box=None)
    table.add_column(text, footer=text)
    table.add_row(text)
    console = make_console(file=file)
    console.print(text)
    console.print(table)
    lines = [line.strip() for line in file.getvalue().splitlines()]
    assert lines == [text.strip()] * 4


def test_a_console_shows_what_its_encoding_lacks_as_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io
    import sys

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    make_console().print("ß \udcff")
    sys.stdout.flush()
    assert raw.getvalue() == b"\\xdf \\udcff\n"


@texts
def test_omegaconf_resolves_it(text: str) -> None:
    assert OmegaConf.create({"seed": 1, "key": as_omegaconf(text)}).key == text


@texts
def test_hydra_reads_it_as_a_value(text: str) -> None:
    value = OverridesParser.create().parse_override(f"key={as_hydra_value(text)}").value()
    assert OmegaConf.create({"seed": 1, "key": value}).key == text


@texts
def test_markdown_shows_it_in_a_table(text: str) -> None:
    shown = markdown.markdown(
        f"| a |\n| --- |\n| {as_markdown(text)} |", extensions=["markdown.extensions.tables"]
    )
    cells = re.findall(r"<td>(.*?)</td>", shown, flags=re.DOTALL)
    assert [" ".join(text_of(cell).split()) for cell in cells] == [" ".join(text.split())]


@texts
def test_a_glob_that_is_a_name_matches_it(text: str) -> None:
    assert matches(f"{text}.weight", [f"{text}.weight"])
    assert matches(f"{text}.weight", ["*.weight"])
    module = torch.nn.Module()
    module.register_parameter(text.replace(".", ""), torch.nn.Parameter(torch.zeros(2)))
    apply_to_parameters(module, "init", {text.replace(".", ""): "ones"})
    assert next(module.parameters()).sum() == 2


def text_of(page: str) -> str:
    return Parsed(page).text


# --- config.yaml and back -------------------------------------------------------------------------


def test_values_of_the_command_line_are_in_config_yaml_and_read_back(tmp_path: Path) -> None:
    names = list(AWKWARD.values())
    texts = (QuotedString(as_omegaconf(name), Quote.double).with_quotes() for name in names)
    quoted = ",".join(texts)
    config = compose(f"data.classes=[{quoted}]", f"data.num_classes={len(names)}", "data=synthetic")
    assert config.data.classes == names
    assert stored_and_read(config, tmp_path) == config


def test_class_folders_are_classes_of_these_names(tmp_path: Path) -> None:
    names = sorted(text.replace("/", "|") for text in AWKWARD.values())
    for name in names:
        (tmp_path / "a [b] ${seed} $x$" / name).mkdir(parents=True)
        (tmp_path / "a [b] ${seed} $x$" / name / "1.png").touch()
    root = as_hydra_value(str(tmp_path / "a [b] ${seed} $x$"))
    config = compose("data=image_folder", f"data.root={root}")
    assert config.data.classes == names
    assert stored_and_read(config, tmp_path) == config


def stored_and_read(config: Config, folder: Path) -> Config:
    run = Run(folder / "run")
    run.begin(config, [], {})
    return resolve_config(read_config(run))


# --- outputs of a run -----------------------------------------------------------------------------


RESULT: Result = {
    "test/acc": 0.5, "test/loss": 1.0, "val/acc": 0.5, "val/loss": 1.0, "images_per_second": 1.0,
    "data_share_of_time": 0.1, "wall_time_seconds": 1.0, "steps": 1, "epochs": 1,
}  # fmt: skip


def test_the_report_of_a_run_shows_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose()
    for text in AWKWARD.values():
        run = tmp_path / text.replace("/", "|")
        print_report({**RESULT, "gradients": [text]}, config=config, run_dir=run, overrides=[])
        printed = capsys.readouterr().out
        assert f"run directory  {run}" in printed
        assert text in printed.splitlines()


@texts
def test_two_runs_side_by_side_show_their_values(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, root in (("a", text), ("b", "other")):
        run = Run(tmp_path / name)
        run.begin({"data": {"root": root}}, [], {})
        run.finish(RESULT)
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert text.strip() in capsys.readouterr().out


def names_drawn(figure: Figure) -> list[str]:
    """Draw a figure and return its texts as they are drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a font without a letter shows a box
        figure.savefig(StringIO(), format="svg")
    return names_of(figure)


def names_of(figure: Figure) -> list[str]:
    found = []
    texts: list[Any] = figure.findobj(Text)
    for drawn in texts:
        shown, is_math = drawn._preprocess_math(drawn.get_text())
        found.append("formula" if is_math else shown)
    return found


@pytest.mark.parametrize("draw", [draw_heatmap, draw_flow])
def test_charts_name_layers(draw: Any) -> None:
    names, shape = tuple(AWKWARD.values()), (3, len(AWKWARD))
    norms = Norms(
        names, np.arange(3), np.ones(shape, np.float32), np.ones(shape, bool),
        skipped=np.zeros(3, bool), counted=np.ones(3, bool),
    )  # fmt: skip
    assert set(names) <= set(names_drawn(draw(norms)))


def test_predictions_name_classes() -> None:
    names = list(AWKWARD.values())
    labels = torch.arange(len(names))
    images = Images(torch.zeros(len(names), 1, 4, 4, dtype=torch.uint8), labels)
    figure = prediction_grid(images, labels, names)
    assert {f"{name} ({name})" for name in names} <= set(names_drawn(figure))


@texts
def test_tensorboard_keeps_tags_and_shows_texts(text: str, tmp_path: Path) -> None:
    logger = TensorBoard(tmp_path)
    logger.log_metrics({f"grad_norm/{text}": 1.0}, 1)
    logger.log_text("config", f"root: {text}")
    logger.experiment.add_text("graph", graph_as_markdown({text: ["AddBackward0", text]}))
    logger.log_results({"data.root": text}, {"val/acc": 1.0}, 1)
    logger.finalize("finished")
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    assert f"grad_norm/{text}" in events.Tags()["scalars"]
    (shown,) = events.Tensors("config/text_summary")
    page = markdown.markdown(shown.tensor_proto.string_val[0].decode())
    assert {tag for tag, _ in Parsed(page).tags} == {"pre", "code"}
    assert f"root: {text}".rstrip() in Parsed(page).text
    (shown,) = events.Tensors("graph/text_summary")
    page = markdown.markdown(
        shown.tensor_proto.string_val[0].decode(), extensions=["markdown.extensions.tables"]
    )
    assert {tag for tag, _ in Parsed(page).tags} == {"table", "thead", "tbody", "tr", "th", "td"}
    cells = [" ".join(text_of(cell).split()) for cell in re.findall(r"<td>(.*?)</td>", page)]
    assert cells == [" ".join(text.split()), "AddBackward0", " ".join(text.split())]


def test_the_table_of_gradients_names_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "a [b] $x$ :smile:"
    folder = run / "gradients" / "parameters"
    folder.mkdir(parents=True)
    names = [f"{text}.weight" for text in AWKWARD.values()]
    rows = {
        "step": [1] * len(names),
        "parameter": pa.array(names).dictionary_encode(),
        "norm": pa.array([1.0] * len(names), pa.float32()),
    }
    pq.write_table(pa.table(rows), folder / "00000001-00000001.parquet")
    assert main(["gradients", str(run), *(f"--parameters={name}" for name in names)]) == 0
    printed = capsys.readouterr().out
    for shown in (*names, str(run)):
        assert shown in printed


# --- outputs of a sweep ---------------------------------------------------------------------------


def test_a_sweep_shows_values_in_its_table_csv_page_and_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a [b] $x$ <i>&amp; é"
    values = [as_hydra_value(text) for text in AWKWARD.values()]
    for number, value in enumerate(values):
        run = Run(folder / str(number))
        run.begin({}, [f"data.root={value}", f"optimizer.lr=0.{number}"], {})
        if number % 2:
            run.fail(f"no memory for {value}")
        else:
            run.finish(RESULT)
    command = f"python train.py -m {' '.join(values)}"
    record = {"jobs": len(values), "metric": "val/acc", "command": command}
    (folder / "sweep.json").write_text(json.dumps(record))
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["sweep", str(folder)]) == 0

    printed = capsys.readouterr().out
    table, rest = printed.split("to train a row again")
    assert str(folder) in table
    for number, value in enumerate(values):
        assert f" {value.strip()} " in table
        assert number % 2 == 0 or f"no memory for {value}".rstrip() in rest
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["data.root"] for row in rows] == values
    assert [row["error"] for row in rows[1::2]] == [
        f"no memory for {v}".rstrip() for v in values[1::2]
    ]

    page = Parsed((folder / "results.html").read_text())
    for shown in (str(folder), command, *values):
        assert shown in page.text
    assert "i" not in [tag for tag, _ in page.tags]
    assert page.leaving(folder) == []


@pytest.mark.parametrize("values", [list(AWKWARD.values())[i::4] for i in range(4)])
def test_plots_show_values(values: Sequence[str]) -> None:
    jobs = [
        Job(str(n), Path(str(n)), "finished", (f"data.root={value}",), dict(RESULT))
        for n, value in enumerate(values)
    ]
    plot = draw_effect(Sweep(Path(), jobs), "data.root")
    page = Parsed(str(plot))
    (data,) = page.attributes("data-plot")
    assert json.loads(data)[0][0][4] == values  # at the pointer
    for value in values:  # below the axis
        assert (value if len(value) < 22 else value[:13]) in page.text


# --- the end of a sweep ---------------------------------------------------------------------------


def full_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def broken(*_: Any) -> None:
    raise ValueError("a plot cannot be drawn")


@pytest.mark.parametrize(
    ("what", "how", "says"),
    [
        ("convtrain.sweeps.table.write_csv", full_disk, "the disk is full"),
        ("convtrain.sweeps.page.write_page", full_disk, "the disk is full"),
        ("convtrain.sweeps.page.write_page", broken, "a plot cannot be drawn"),
        ("convtrain.sweeps.table.text_table", broken, "a plot cannot be drawn"),
        ("convtrain.sweeps.table.read_sweep", broken, "a plot cannot be drawn"),
    ],
)
def test_whatever_fails_at_the_end_of_a_sweep_makes_the_status(
    what: str, how: Any, says: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Hydra makes a warning of an exception in a callback, and the command would end with 0."""
    from hydra._internal.callbacks import Callbacks

    run = Run(tmp_path / "0")
    run.begin({}, ["seed=1"], {})
    run.finish(RESULT)
    monkeypatch.setattr(what, how)
    config = OmegaConf.create(
        {"hydra": {
            "sweep": {"dir": str(tmp_path)}, "sweeper": {},
            "callbacks": {"t": {"_target_": "convtrain.sweeps.callback.SweepTable"}},
        }}
    )  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        Callbacks(config).on_multirun_end(config)
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert says in printed.err
    if "page" in what:
        assert "1 of 1 jobs finished" in printed.out
    assert close_sweep(tmp_path) is False
