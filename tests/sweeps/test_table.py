"""What a sweep comes to: the live line, the table as text, CSV and a page, at any time."""

import csv
import json
import re
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from convtrain.__main__ import main
from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_command
from convtrain.process.lock import locked
from convtrain.run.directory import Run
from convtrain.sweeps.callback import begin_sweep, count_distinct
from convtrain.sweeps.live import LiveLine
from convtrain.sweeps.reading import read_sweep
from convtrain.sweeps.results import Job, Sweep
from convtrain.sweeps.table import show_sweep, text_table, write_csv
from convtrain.text import format_duration
from tests.command.typed import check
from tests.conftest import REPOSITORY, compose, compose_once
from tests.pages.parsed import Parsed

ACCURACY = {  # of jobs by learning rate and seed
    ("0.1", "1"): 0.90, ("0.1", "2"): 0.94, ("0.01", "1"): 0.97, ("0.01", "2"): 0.96,
    ("0.3", "1"): 0.50, ("0.3", "2"): None,
}  # fmt: skip


def leave_job(folder: Path, name: str, overrides: list[str], accuracy: float | None) -> None:
    """Write what a job leaves behind; without an accuracy it has failed."""
    run = Run(folder / name)
    run.path.mkdir(parents=True)
    config = compose_once(*overrides)
    run.begin(config, overrides, {"threads": 2})
    if accuracy is None:
        run.fail("no memory for conv2d_1")
        return
    run.finish(
        {"val/acc": accuracy, "val/loss": 1 - accuracy, "test/acc": accuracy - 0.01,
         "test/loss": 1.0, "wall_time_seconds": 75.0, "gradients": ["Healthy: 5 steps recorded"]}
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.chdir(REPOSITORY)
    folder = tmp_path / "sweep"
    for number, ((rate, seed), accuracy) in enumerate(ACCURACY.items()):
        overrides = [f"optimizer.lr={rate}", f"seed={seed}", "data.limit=64"]
        leave_job(folder, str(number), overrides, accuracy)
    record = {"jobs": 8, "metric": "val/acc", "command": "python train.py -m seed=1,2"}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


def test_rows_are_sorted_by_the_metric_with_mean_and_deviation_over_seeds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(folder)]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line[:3].strip().isdigit()]
    table = [row for row in rows if "python" not in row]
    assert [row[1] for row in table] == ["0.01", "0.1", "0.3"]
    values = [v for (rate, _), v in ACCURACY.items() if rate == "0.1" and v is not None]
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    assert table[1][2:6] == ["2", f"{mean:.2%}", "±", f"{deviation:.2%}"]
    assert "1 min 15 s" in printed
    assert "healthy" in printed
    assert "5 of 8 jobs finished, 1 failed, 2 not started" in printed
    assert "failed: job 5 (optimizer.lr=0.3 seed=2): no memory for conv2d_1" in printed
    assert "data.limit" not in printed.split("to train a row again")[0]


def test_the_command_of_a_row_is_what_its_jobs_were(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(folder)]) == 0
    printed = capsys.readouterr().out
    command = "python train.py -m optimizer.lr=0.01 seed=1,2 data.limit=64 trainer.threads=2"
    assert f"  1  {command}" in printed.splitlines()
    with (folder / "results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            arguments = shlex.split(row["command"])[2:]
            config = compose(*arguments)
            assert config.optimizer.lr == float(row["optimizer.lr"])
            assert config.seed == int(row["seed"])


@pytest.mark.parametrize(
    ("seeds", "folds", "heading", "typed"),
    [
        ("1", "012", "folds", "seed=1 data.fold=0,1,2"),
        ("12", "0", "seeds", "seed=1,2 data.fold=0"),
        ("12", "012", "seeds x folds", "seed=1,2 data.fold=0,1,2"),
    ],
)
def test_folds_are_averaged_like_seeds(
    seeds: str, folds: str, heading: str, typed: str, tmp_path: Path
) -> None:
    def job(rate: str, seed: str, fold: str) -> Job:
        asked = (f"optimizer.lr={rate}", f"seed={seed}", f"data.fold={fold}", "data.folds=3")
        result = {"val/acc": float(rate) + int(seed) / 10 + int(fold) ** 2 / 50}
        return Job("_".join(asked), tmp_path, "finished", asked, result)

    pairs = list(product(seeds, folds))
    jobs = [job(rate, *pair) for pair in pairs for rate in ("0.1", "0.2")]
    sweep = Sweep(tmp_path, jobs)
    best, other = sweep.groups()
    values = np.array([0.2 + int(seed) / 10 + int(fold) ** 2 / 50 for seed, fold in pairs])
    assert best.mean("val/acc") == pytest.approx(values.mean())
    assert best.std("val/acc") == pytest.approx(values.std(ddof=1))
    assert other.mean("val/acc") == pytest.approx(values.mean() - 0.1)
    headings = [str(column.header) for column in text_table(sweep).columns]
    assert headings[1:4] == ["optimizer.lr", heading, "val/acc"]
    assert f"-m optimizer.lr=0.2 {typed} data.folds=3" in best.command()
    write_csv(sweep)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["optimizer.lr"] == "0.2"]
    assert {float(row["val/acc std"]) for row in rows} == {best.std("val/acc")}
    assert sorted((row["seed"], row["data.fold"]) for row in rows) == pairs


def test_a_test_on_the_validation_images_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "all test metrics are of the validation images, because the data has no others"
    for split in ("test", "val"):
        for number in range(5):
            run = Run(folder / str(number))
            run.finish({**(run.read_result() or {}), "tested_split": split})
        show_sweep(folder)
        for text in (capsys.readouterr().out, (folder / "results.html").read_text()):
            assert (note in text) == (split == "val")


def test_metrics_that_were_chosen_or_logged_by_a_callback_are_columns(folder: Path) -> None:
    measured = {"val/f1": 0.1, "test/f1": 0.2, "val/confusion": [[1]], "wall_time_seconds": 1.0}
    logged = {"callback_metrics": {"val/mine": 0.3, "lr/head": 0.1}}
    for number in ("0", "1"):
        Run(folder / number).finish({**measured, **logged})
    assert read_sweep(folder).shown_metrics == [
        "val/acc", "test/acc", "val/loss", "test/f1", "val/mine",
    ]  # fmt: skip


def test_the_csv_has_a_line_for_each_job(folder: Path) -> None:
    assert main(["sweep", str(folder)]) == 0
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == [str(n) for n in range(6)]
    for row, accuracy in zip(rows, ACCURACY.values(), strict=True):
        assert row["val/acc"] == ("" if accuracy is None else str(accuracy))
        assert row["status"] == ("failed" if accuracy is None else "finished")
        assert Path(row["run_dir"]) == folder / row["job"]
    assert float(rows[0]["val/acc mean"]) == pytest.approx(0.92)
    assert rows[5]["error"] == "no memory for conv2d_1"


def test_the_page_needs_no_other_file_and_plots_each_parameter(folder: Path) -> None:
    leave_job(folder, "6", ["optimizer.lr=0.2", "seed=1", "data.root='<b>&'"], 0.4)
    odd = "<script>alert('x')<\"%25 ☃"
    leave_job(folder, odd, ["optimizer.lr=0.2", "seed=2", "data.root='<b>&'"], None)
    Run(folder / "6").report.write_text("<p>of job 6</p>")
    assert main(["sweep", str(folder)]) == 0
    page = Parsed((folder / "results.html").read_text())
    assert page.unclosed == []
    assert "<b>&" in page.text  # and no tag of it
    assert page.text.count(odd) == 2  # among the jobs and among those that failed
    assert page.leaving(folder) == []
    links = [given["href"] for tag, given in page.tags if tag == "a"]
    assert [link for link in links if link and "report" in link] == ["6/report.html"]
    plots = [json.loads(data) for data in page.attributes("data-plot")]
    assert len(plots) == 2  # of learning rate and seed; one value has no effect to show
    _, (dots, means) = next(plot for plot in plots if max(plot[1][0][2]) == 0.3)
    points = sorted(zip(*dots[2:], strict=True))
    assert points == sorted(
        (float(rate), y) for (rate, _), y in [*ACCURACY.items(), (("0.2", ""), 0.4)] if y
    )
    assert dict(zip(*means[2:], strict=True))[0.1] == pytest.approx((0.90 + 0.94) / 2)


@pytest.mark.parametrize("finished", range(4))
def test_an_unfinished_sweep_has_a_table_too(
    tmp_path: Path, finished: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({"jobs": 3, "metric": "val/loss"}))
    for number in range(finished):
        leave_job(folder, str(number), [f"seed={number}"], 0.5 + number / 10)
    if finished < 3:
        Run(folder / str(finished)).announce(compose_once(), [f"seed={finished}"])
    assert main(["sweep", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"{finished} of 3 jobs finished" in printed
    assert ("1 unfinished" in printed) == (finished < 3)


def test_what_is_no_sweep_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path / 'none'}: no sweep; give the directory that python train.py -m has named\n"
    )


def test_the_live_line_counts_what_is_done_runs_and_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: Iterator[float] = iter([100.0, 160.0])
    line = LiveLine(folder, "val/acc", 9)
    monkeypatch.setattr("convtrain.sweeps.live.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(line._thread, "start", lambda: None)
    line.start()
    assert line.printed == 6
    leave_job(folder, "6", ["optimizer.lr=0.03", "seed=1", "data.limit=64"], 0.99)
    (folder / "7").mkdir()
    with locked(folder / "7"):
        told = line.line()
    assert told == (
        "6 of 9 done, 1 running, 1 failed; best val/acc 99.00% (optimizer.lr=0.03 seed=1); "
        "about 2 min 0 s left"
    )


def test_a_loss_is_best_where_it_is_least(folder: Path) -> None:
    (folder / "sweep.json").write_text(json.dumps({"jobs": 6, "metric": "val/loss"}))
    sweep = read_sweep(folder)
    assert [row.settings["optimizer.lr"] for row in sweep.groups()] == ["0.01", "0.1", "0.3"]
    best = sweep.best()
    assert best is not None
    assert best.name == "2"


def test_the_directory_of_a_sweep_follows_from_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def place(*arguments: str) -> str:
        return str(check(["-m", *arguments]).settings["hydra.sweep.dir"])

    usual = place("seed=1,2", "optimizer.lr=0.1")
    assert place("optimizer.lr=0.1", "seed=1,2") == usual
    for neutral in ("sweep.retry_failed=true", "hydra/launcher=joblib", "sweep.gpus=[0]"):
        assert place("seed=1,2", "optimizer.lr=0.1", neutral) == usual
    for extended in ("seed=1,2,3", "seed=4,1", "seed=range(1,9)"):
        assert place(extended, "optimizer.lr=0.1") == usual
    others = [["seed=1,2"], ["optimizer.lr=0.1,0.2"], ["seed=1,2", "optimizer.lr=0.1,0.2"]]
    assert len({usual, *(place(*other) for other in others)}) == 4
    chosen = place("model=functional,nn")
    assert place("model=nn,functional") == chosen
    assert place("model=functional,nn", "debug=none") == chosen
    assert place("model=functional,nn", "optimizer=adamw") != chosen


def job_dir(*overrides: str, swept: Sequence[str] = ("seed", "optimizer.lr")) -> str:
    """Return the name of a job's directory as Hydra composes it."""
    keys = ",".join(swept)
    typed = [*overrides, f"++hydra.callbacks.sweep_table.swept=[{keys}]"]
    (composed,) = compose_command(CommandLine(overrides=typed))
    return str(composed.hydra.sweep.subdir)


def test_the_directory_of_a_job_follows_from_its_own_values() -> None:
    usual = job_dir("seed=1", "optimizer.lr=0.1")
    assert re.fullmatch(r"lr-0\.1_seed-1_[0-9a-f]{6}", usual)
    assert job_dir("optimizer.lr=0.1", "trainer=cpu", "seed=1") == usual
    assert job_dir("++optimizer.lr=0.1", "seed=1", "callbacks.progress_bar=false") == usual
    assert len({usual, job_dir("seed=2", "optimizer.lr=0.1"), job_dir("seed=1")}) == 3
    awkward = job_dir("data.root='a [/b] $x$ ../'", swept=["data.root"])
    assert re.fullmatch(r"root-[\w.-]+_[0-9a-f]{6}", awkward)
    long = [job_dir(f"data.root={'x' * 300}{end}", swept=["data.root"]) for end in "ab"]
    assert len(set(long)) == 2
    assert max(map(len, long)) < 60
    unknown = job_dir("seed=1", "callbacks.progress_bar=false", swept=[])
    assert unknown == job_dir("seed=1", swept=[]) != job_dir("seed=2", swept=[])


def test_a_sweep_is_finished_with_the_jobs_of_its_last_command(folder: Path) -> None:
    """Of three jobs the command before had one that failed, which the last one does not have."""
    for name in ("0", "1", "2", "3", "4"):
        with locked(folder / name):
            pass
    record = {"jobs": 5, "since": 0.0}
    (folder / "sweep.json").write_text(json.dumps(record))
    assert not read_sweep(folder).is_finished
    with locked(folder / "5"):
        since = time.time()
    (folder / "sweep.json").write_text(json.dumps({"jobs": 5, "since": since + 0.1}))
    assert read_sweep(folder).standing() == "0 of 5 jobs finished, 5 not started; 6 from before"
    monkeyed = since + 1
    for name in ("0", "1", "2", "3", "4"):
        (folder / name / ".lock").write_text(json.dumps({"time": monkeyed}))
    assert read_sweep(folder).is_finished
    assert read_sweep(folder).standing() == "5 of 5 jobs finished; 1 from before"


def test_trials_of_a_search_with_the_same_values_are_one_job(tmp_path: Path) -> None:
    begin_sweep(tmp_path, retry_failed=False, jobs=12, metric="val/acc", identity="a")
    for seed in ("1", "2"):
        leave_job(tmp_path, f"seed-{seed}", [f"seed={seed}"], 0.5)
    assert not read_sweep(tmp_path).is_finished
    count_distinct(tmp_path)
    assert read_sweep(tmp_path).is_finished


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (419.8, "7 min 0 s"),
     (3599.6, "1 h 0 min"), (7170, "2 h 0 min")],
)  # fmt: skip
def test_a_time_is_told_as_people_do(seconds: float, told: str) -> None:
    assert format_duration(seconds) == told
