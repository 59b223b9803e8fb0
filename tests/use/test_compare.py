"""Two runs side by side, and a run trained again from its record."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from convtrain.__main__ import main
from convtrain.command.job_config import resolve_config
from convtrain.gradients import load
from convtrain.run.directory import Run
from convtrain.training.checkpoint_file import load_checkpoint, save_checkpoint
from convtrain.use import bits
from convtrain.use.bits import compare_bits
from tests.conftest import QUICK, REPOSITORY, Train, compose

SMALL = ("data.limit=128", "network=lstm", "logger=csv", "trainer.max_epochs=1")


@pytest.fixture
def runs(train: Train, tmp_path: Path) -> tuple[Path, Path]:
    train(*SMALL, "optimizer.lr=0.1", name="a")
    train(*SMALL, "optimizer.lr=0.01", name="b")
    return tmp_path / "a", tmp_path / "b"


def layer_norms(run: Path, layer: str) -> np.ndarray:
    """Return the gradient norm of a layer at each step, from the raw rows."""
    squares: dict[int, float] = {}
    for row in load(run, "parameters").to_pylist():
        if row["parameter"].startswith(f"{layer}."):
            squares[row["step"]] = squares.get(row["step"], 0) + row["norm"] ** 2
    return np.sqrt(list(squares.values()))


def test_two_runs_stand_side_by_side(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = runs
    provenance = json.loads((second / "provenance.json").read_text())
    provenance["packages"]["torch"] = "1.0.old"
    (second / "provenance.json").write_text(json.dumps(provenance))
    assert main(["diff", str(first), str(second)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line}
    results = [json.loads((run / "result.json").read_text()) for run in runs]
    assert rows["optimizer.lr"] == ["0.1", "0.01"]
    assert "seed" not in rows
    assert rows["packages.torch"] == [torch.__version__, "1.0.old"]
    losses = [result["test/loss"] for result in results]
    assert rows["test/loss"][:2] == [f"{loss:.6g}" for loss in losses]
    assert float(rows["test/loss"][2]) == pytest.approx(losses[1] - losses[0], rel=0.01)
    assert rows["steps"][2] == "same"
    medians = [np.median(layer_norms(run, "linear_1")) for run in runs]
    assert float(rows["linear_1"][0]) == pytest.approx(medians[0], rel=0.05)
    assert float(rows["linear_1"][2]) == pytest.approx(medians[1] / medians[0], rel=0.01)


def test_the_same_run_twice_differs_in_nothing(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(runs[0]), str(runs[0])]) == 0
    printed = capsys.readouterr().out
    assert "config: the same" in printed
    assert "versions and machine: the same" in printed
    assert not compare_bits(runs[0], runs[0]).differing


def test_one_bit_of_one_weight_is_found(runs: tuple[Path, Path], tmp_path: Path) -> None:
    verdict = compare_bits(*runs)
    count = len(load_checkpoint(runs[0] / "checkpoints" / "last.ckpt")["state_dict"])
    assert verdict.differing[0].startswith(f"{count} of {count} tensors of the network")
    assert any(line.startswith("test/loss: ") for line in verdict.differing)
    assert any(line.startswith("the record's parameters: ") for line in verdict.differing)

    turned = tmp_path / "turned"
    shutil.copytree(runs[0], turned)
    whole = load_checkpoint(turned / "checkpoints" / "last.ckpt")
    weight = whole["state_dict"]["model.linear_1.bias"]
    weight.view(torch.int32)[0] ^= 1
    save_checkpoint(whole, turned / "checkpoints" / "last.ckpt")
    (line,) = compare_bits(runs[0], turned).differing
    assert line.startswith(f"1 of {count} tensors of the network")
    assert line.endswith("such as model.linear_1.bias")


def test_a_column_that_a_later_version_records_is_no_difference(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = bits.load

    def load(run: Path, table: str) -> pa.Table:
        found = read(run, table)
        return found.append_column("newer", [range(len(found))]) if run == changed else found

    monkeypatch.setattr(bits, "load", load)
    same = shutil.copytree(runs[0], runs[0].with_name("same"))
    changed = same
    assert compare_bits(runs[0], same).is_same
    changed = runs[0]
    differing = compare_bits(runs[0], same).differing
    assert differing
    assert all(line.endswith(": newer") for line in differing)


@pytest.mark.parametrize("verb", ["diff", "rerun"])
def test_what_is_no_run_is_one_line(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(tmp_path), *([str(tmp_path)] if verb == "diff" else [])]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}: not a run; give a directory that contains config.yaml\n"
    )


def test_what_is_not_finished_cannot_be_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(compose().model_dump(by_alias=True)))
    assert main(["rerun", str(tmp_path)]) == 2
    assert "is not finished" in capsys.readouterr().err


def test_a_stored_configuration_is_the_one_that_was_trained(runs: tuple[Path, Path]) -> None:
    from convtrain.command.resume import read_config

    stored = resolve_config(read_config(Run(runs[1])))
    overrides = (*QUICK, *SMALL, "optimizer.lr=0.01")
    assert stored == compose(*overrides)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_a_run_trained_again_is_the_same_to_the_last_bit(
    tmp_path: Path, trainer: str, python: str
) -> None:
    run, out = tmp_path / "run", tmp_path / "again"

    def call(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [python, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )

    made = call("train.py", f"trainer={trainer}", *SMALL, f"hydra.run.dir={run}")
    assert made.returncode == 0, made.stderr
    again = call("-m", "convtrain", "rerun", str(run), "--out", str(out))
    assert again.returncode == 0, again.stderr
    assert "the same bits: " in again.stdout
    first, second = ((f / "result.json").read_text() for f in (run, out))
    assert json.loads(first)["test/loss"] == json.loads(second)["test/loss"]

    config = yaml.safe_load((run / "config.yaml").read_text())
    config["optimizer"]["lr"] *= 1 + 1e-6
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    other = call("-m", "convtrain", "rerun", str(run), "--out", str(tmp_path / "other"))
    assert other.returncode == 1
    assert "not the same bits:" in other.stdout
