"""Run directories that an earlier version wrote: every verb reads them, and a killed run resumes.

They are archives in ``tests/run/before``; its README says what they are. Oracles are their own
files, read with pyarrow, torch and csv, and an uninterrupted training of the stored configuration.
"""

import csv
import io
import json
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

import convtrain
from convtrain.__main__ import main
from tests.conftest import REPOSITORY, compose

BEFORE = Path(__file__).parent / "before"
FILES = [name for archive in sorted(BEFORE.glob("*.zip")) for name in ZipFile(archive).namelist()]
JOBS = sorted({name.split("/")[1] for name in FILES if name.startswith("synthetic_sweep/model-")})
RUNS = ("digits_functional", "digits_killed", *(f"synthetic_sweep/{job}" for job in JOBS))
FINISHED = tuple(name for name in RUNS if name != "digits_killed")
TABLES = ("steps", "parameters", "layers", "histograms")
RECORDED = [
    (run, table)
    for run in RUNS
    for table in TABLES
    if any(name.startswith(f"{run}/gradients/{table}/") for name in FILES)
]

Capture = pytest.CaptureFixture[str]


def copied(name: str, to: Path) -> Path:
    """Unpack a run, or a sweep, into a folder; return its directory there."""
    archive = BEFORE / f"{name.split('/')[0]}.zip"
    with tempfile.TemporaryDirectory(dir=to.parent) as unpacked:
        shutil.unpack_archive(archive, unpacked)
        return Path(shutil.copytree(Path(unpacked) / name, to / Path(name).name))


def checkpoint(run: Path, name: str = "last.ckpt") -> dict[str, Any]:
    return dict(torch.load(run / "checkpoints" / name, weights_only=True))


def result_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "result.json").read_text()))


def tensors(saved: dict[str, Any]) -> dict[str, Tensor]:
    """Return weights, buffers and the optimiser's state of a checkpoint, under one name each."""
    states = enumerate(saved["optimizer_states"][0]["state"].items())
    moments = {
        f"optimizer.{number}.{key}": torch.as_tensor(value)
        for number, (_, state) in states
        for key, value in state.items()
        if value is not None
    }
    return {**saved["state_dict"], **moments}


def same_bits(first: dict[str, Any], second: dict[str, Any]) -> bool:
    a, b = tensors(first), tensors(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_close(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Compare checkpoints as far as another machine or another torch computes the same."""
    torch.testing.assert_close(tensors(first), tensors(second), rtol=1e-3, atol=1e-4)


def test_there_is_every_table_and_a_run_that_is_not_finished() -> None:
    assert {table for name, table in RECORDED if name == "digits_functional"} == {*TABLES}
    assert [f"{name}/result.json" in FILES for name in RUNS] == [True, False, True, True]


@pytest.mark.parametrize(("name", "table"), RECORDED)
def test_a_table_holds_what_was_recorded(
    name: str, table: str, tmp_path: Path, capsys: Capture
) -> None:
    """Values are compared in the order of their columns, whose names may change."""
    run = copied(name, tmp_path)
    parts = sorted((run / "gradients" / table).iterdir())
    recorded = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert main(["gradients", str(run), f"--table={table}", "--csv=-"]) == 0
    shown = list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:]
    assert len(shown) == len(recorded) > 0
    for cells, row in zip(shown, recorded, strict=True):
        texts = [cell for cell in cells if cell]
        values = [value for value in row.values() if value is not None]
        assert len(texts) == len(values)
        for text, value in zip(texts, values, strict=True):
            if type(value) is float:
                assert float(text) == pytest.approx(value, nan_ok=True)
            else:
                assert (text if isinstance(value, str) else json.loads(text)) == value


@pytest.mark.parametrize("name", RUNS)
def test_the_gradients_are_reported(name: str, tmp_path: Path, capsys: Capture) -> None:
    run, out = copied(name, tmp_path), tmp_path / "out"
    assert main(["gradients", str(run), "--layers", f"--out={out}"]) == 0
    printed = capsys.readouterr()
    assert "linear_1" in printed.out
    assert not printed.err
    assert any(out.iterdir())


@pytest.mark.parametrize("name", RUNS)
def test_the_weights_are_exported(name: str, tmp_path: Path) -> None:
    run = copied(name, tmp_path)
    for which, file in (("last", "last.ckpt"), ("best", "best-*.ckpt")):
        (source,) = (run / "checkpoints").glob(file)
        out = tmp_path / f"{which}.safetensors"
        assert main(["export", str(run), f"--checkpoint={which}", f"--out={out}"]) == 0
        saved = checkpoint(run, source.name)["state_dict"]
        exported = {f"model.{name}": tensor for name, tensor in load_file(out).items()}
        torch.testing.assert_close(exported, saved, rtol=0, atol=0)


@pytest.mark.parametrize("other", RUNS)
def test_two_runs_are_compared(other: str, tmp_path: Path, capsys: Capture) -> None:
    first, second = copied("digits_functional", tmp_path / "a"), copied(other, tmp_path / "b")
    assert main(["diff", str(first), str(second)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line}
    stored = [yaml.safe_load((run / "config.yaml").read_text()) for run in (first, second)]
    styles = [config["model"]["style"] for config in stored]
    assert rows.get("model.style", styles[:1] * 2) == styles
    assert rows["test/loss"][0] == f"{result_of(first)['test/loss']:.6g}"
    assert ("config:" in rows) == (other == "digits_functional")


def test_runs_stand_on_one_page(tmp_path: Path, capsys: Capture) -> None:
    runs = {name: copied(name, tmp_path) for name in RUNS}
    assert main(["compare", str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    states = {row[0]: row[1:3] for row in rows if len(row) > 3}
    for name in FINISHED:
        accuracy = result_of(runs[name])["val/acc"]
        assert states[runs[name].name] == ["finished", f"{accuracy:.2%}"]


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_trained_again(name: str, tmp_path: Path, capsys: Capture) -> None:
    """Another machine may compute other last bits, which the verb then reports."""
    run, out = copied(name, tmp_path), tmp_path / "again"
    status = main(["rerun", str(run), f"--out={out}"])
    assert ("not the same bits" in capsys.readouterr().out) == (status == 1)
    assert_close(checkpoint(out), checkpoint(run))
    if same_bits(checkpoint(out), checkpoint(run)):
        assert status == 0
    for key in ("val/loss", "test/loss", "steps", "epochs", "parameters"):
        assert result_of(out)[key] == pytest.approx(result_of(run)[key], rel=1e-3)


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_that_is_resumed_stays_as_it_is(name: str, tmp_path: Path) -> None:
    run = copied(name, tmp_path)
    before = (run / "result.json").read_bytes()
    assert convtrain.train(compose(f"resume={run}"), run) == json.loads(before)
    assert (run / "result.json").read_bytes() == before


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_trained_longer(name: str, tmp_path: Path) -> None:
    run = copied(name, tmp_path)
    steps = result_of(run)["steps"]
    longer = convtrain.train(compose(f"resume={run}", "trainer.max_epochs=3"), run)
    assert (longer["epochs"], longer["steps"]) == (3, steps * 3 // 2)


def test_the_killed_run_resumes_to_what_an_uninterrupted_one_comes_to(tmp_path: Path) -> None:
    killed, whole = copied("digits_killed", tmp_path), tmp_path / "whole"
    saved = checkpoint(killed)
    resumed = convtrain.train(compose(f"resume={killed}"), killed)
    anew = compose(f"resume={killed}", "callbacks.checkpoint.keep_last=9")
    expected = convtrain.train(anew.model_copy(update={"resume": None}), whole)
    exact = same_bits(saved, checkpoint(whole, f"step{saved['global_step']:06d}.ckpt"))
    if exact:  # the machine and the versions are those of before
        assert same_bits(checkpoint(killed), checkpoint(whole))
    assert_close(checkpoint(killed), checkpoint(whole))
    for key in ("val/loss", "val/acc", "test/loss", "train/loss_epoch", "steps", "epochs"):
        wanted = expected[key] if exact else pytest.approx(expected[key], rel=1e-2)
        assert resumed[key] == wanted
    assert steps_of(killed) == steps_of(whole)
    assert len(rows_of(killed)) == len(rows_of(whole))


def steps_of(run: Path) -> list[int]:
    parts = sorted((run / "gradients" / "steps").iterdir())
    return [step for part in parts for step in pq.read_table(part)["step"].to_pylist()]


def rows_of(run: Path) -> list[list[str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_the_state_of_the_callbacks_is_taken_up(tmp_path: Path) -> None:
    """A renamed class would leave the state that Lightning stored under the old name behind."""
    killed = copied("digits_killed", tmp_path)
    before = checkpoint(killed)["callbacks"]
    convtrain.train(compose(f"resume={killed}"), killed)
    after = checkpoint(killed)["callbacks"]
    assert {key.split("{")[0] for key in after} >= {key.split("{")[0] for key in before}
    early, start = (
        next(value for key, value in state.items() if "EarlyStopping" in key)
        for state in (after, before)
    )
    assert early["best_score"] <= start["best_score"]


def test_the_table_of_a_sweep_is_shown(tmp_path: Path, capsys: Capture) -> None:
    sweep = copied("synthetic_sweep", tmp_path)
    before = list(csv.DictReader((sweep / "results.csv").open(newline="")))
    assert main(["sweep", str(sweep)]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 jobs finished" in printed
    assert all(job in printed for job in JOBS)
    after = list(csv.DictReader((sweep / "results.csv").open(newline="")))
    assert [row["val/loss"] for row in after] == [row["val/loss"] for row in before]


def test_a_sweep_that_is_typed_again_leaves_its_jobs_as_they_are(
    tmp_path: Path, python: str
) -> None:
    sweep = copied("synthetic_sweep", tmp_path)
    command = json.loads((sweep / "sweep.json").read_text())["command"]
    typed = shlex.split(command.replace("runs/synthetic_sweep", str(sweep)))[1:]
    results = {job: (sweep / job / "result.json").read_bytes() for job in JOBS}
    done = subprocess.run([python, *typed], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs finished" in done.stdout
    assert {job: (sweep / job / "result.json").read_bytes() for job in JOBS} == results
