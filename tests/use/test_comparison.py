"""Several runs on one page: ``convtrain compare``."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from convtrain.__main__ import main
from convtrain.run.curves import read_curves
from convtrain.run.directory import Run
from tests.conftest import Train
from tests.pages.parsed import Parsed
from tests.use.test_compare import layer_norms

HEADER = "step,epoch,train/loss,train/acc,train/loss_epoch,val/loss,val/acc,test/loss,lr\n"
STEPS_PER_EPOCH = 4
INJECTED = '</script><script>alert(1)</script>"><img src=x onerror=alert(2)>'


def leave_run(
    folder: Path, epochs: int, rate: float = 0.1, *, finished: bool = True, **config: object
) -> dict[str, float]:
    """Write what a run leaves, with numbers that follow from its rate; return the last ones."""
    run, text = Run(folder), HEADER
    run.path.mkdir(parents=True)
    run.begin({"optimizer": {"lr": rate}, **config}, [], {})
    last: dict[str, float] = {}
    for epoch in range(epochs):
        end = (epoch + 1) * STEPS_PER_EPOCH
        last = {"val/loss": rate / end, "val/acc": 1 - rate / end}
        text += f"{end - 2},,{8 * rate / end},0.5,,,,,{rate}\n"
        text += f"{end},{epoch},,,,{last['val/loss']},{last['val/acc']},,\n"
        text += f"{end},{epoch},,,{2 * rate / end},,,,\n"
    (folder / "metrics.csv").write_text(text + ("" if finished else "9,,0.12"))
    if finished:
        run.finish({**last, "steps": epochs * STEPS_PER_EPOCH, "epochs": epochs})
    return last


def test_runs_that_tested_their_validation_images_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rate in (0.1, 0.2):
        leave_run(tmp_path / str(rate), 1, rate)
    run = Run(tmp_path / "0.2")
    for split, note in (("test", ""), ("val", "the test metrics of lr=0.2 are of the validation")):
        run.finish({**(run.read_result() or {}), "tested_split": split})
        assert main(["compare", str(tmp_path)]) == 0
        for text in (capsys.readouterr().out, (tmp_path / "compare.html").read_text()):
            assert (note in text) if note else ("of the validation images" not in text)


def test_the_curves_of_a_run_that_was_killed(tmp_path: Path) -> None:
    last = leave_run(tmp_path / "a", epochs=2, finished=False)
    curves = read_curves(tmp_path / "a")
    assert curves["val/loss"].steps == [4, 8]
    assert curves["val/loss"].values[-1] == last["val/loss"]
    assert curves["train/loss"].steps == [2, 6]  # a row that was cut off does not count
    assert curves["train/loss"].epochs == [0.5, 1.5]
    assert "step" not in curves
    assert read_curves(tmp_path) == {}
    (tmp_path / "metrics.csv").write_text("step,epoch,val/loss\n1,,0.5\n3,,0.25\n")
    assert all(math.isnan(epoch) for epoch in read_curves(tmp_path)["val/loss"].epochs)


def test_runs_stand_on_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = (0.1, 0.2, 0.4)
    last = [
        leave_run(tmp_path / "sweep" / str(rate), epochs, rate, finished=epochs < 3)
        for epochs, rate in enumerate(rates, start=1)
    ]
    Run(tmp_path / "sweep" / "0.2").report.write_text("<p>of this run</p>")
    assert main(["compare", str(tmp_path / "sweep")]) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "sweep" / "compare.html"
    assert printed.splitlines()[-1] == f"the page  {out}"
    lines = [line.split() for line in printed.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line}
    assert rows["lr=0.1"] == [
        "finished",
        f"{last[0]['val/acc']:.2%}",
        f"{last[0]['val/loss']:.4g}",
        "4",
    ]
    assert rows["lr=0.4"] == [
        "unfinished",
        f"{last[2]['val/acc']:.2%}",
        f"{last[2]['val/loss']:.4g}",
        "12",
    ]

    page = Parsed(out.read_text())
    assert page.unclosed == []
    assert page.leaving(out.parent) == []
    links = [given["href"] for tag, given in page.tags if tag == "a"]
    assert links == ["0.1", "0.2/report.html", "0.4"]
    drawn = [json.loads(data)[1] for data in page.attributes("data-plot")]
    assert len(drawn) == 2 * 6  # val/loss, val/acc, two of the training, its accuracy, lr; twice
    by_step, by_epoch = drawn[0], drawn[6]
    assert [name for name, *_ in by_step] == [f"lr={rate}" for rate in rates]
    assert by_step[2][2:] == [[4, 8, 12], [0.1, 0.05, pytest.approx(0.4 / 12, rel=1e-5)]]
    assert by_epoch[2][2:] == [[1, 2, 3], by_step[2][3]]
    assert "optimizer.lr" in page.text

    monkeypatch.chdir(tmp_path / "sweep" / "0.1")
    assert main(["compare", ".", "../0.2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"the page  {out}"


def test_runs_with_one_name_are_told_apart_and_texts_are_no_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / group / "run" for group in (INJECTED.replace("/", "%"), "b")]
    for number, folder in enumerate(folders):
        keys = {f"key{INJECTED}{i}": f"{INJECTED} {number}" for i in range(4)}
        leave_run(folder, 1, **keys)  # type: ignore[arg-type]
    out = tmp_path / "page.html"
    assert main(["compare", *map(str, folders), str(folders[0]), "--out", str(out)]) == 0
    assert "b/run" in capsys.readouterr().out
    page = Parsed(out.read_text())
    assert page.leaving(tmp_path) == []
    assert page.unclosed == []
    assert f"{INJECTED} 1" in page.text
    assert "2 runs side by side" in page.text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tow", "one"], "tow: no such directory; did you mean two?"),
        (["empty"], "empty: holds no run; give directories of runs, or of a sweep"),
        (["one", "one"], "one one: is one run; name at least two"),
        (["one", "two", "--out", "empty"], "--out empty: is a directory; give a file such as "),
        (["one", "two", "--out", "one/config.yaml/a"], "one/config.yaml/a"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_line(
    arguments: list[str], line: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for name in ("one", "two"):
        Run(tmp_path / name).path.mkdir()
        Run(tmp_path / name).config.write_text("seed: 1\n")
    assert main(["compare", *arguments]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(line)
    assert "; " in error


@pytest.mark.slow
def test_gradient_norms_stand_side_by_side(train: Train, tmp_path: Path) -> None:
    small = ("data.limit=128", "network=lstm", "logger=csv")
    train(*small, "optimizer.lr=0.1", name="a")
    train(*small, "optimizer.lr=0.01", name="b")
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "gradients")  # without a record
    assert main(["compare", *(str(tmp_path / name) for name in "abc")]) == 0
    page = Parsed((tmp_path / "compare.html").read_text())
    axes, series = [json.loads(data) for data in page.attributes("data-plot")][-1]
    layer = axes[1][4].index("linear_1")
    for name, (_, _, norms, places) in zip("ab", series, strict=False):
        norm = dict(zip(places, norms, strict=True))[layer]
        assert norm == pytest.approx(np.median(layer_norms(tmp_path / name, "linear_1")), rel=1e-4)
    assert [name for name, *_ in series] == ["a", "b"]
