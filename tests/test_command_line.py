"""``python train.py`` as a user types it: what is printed, what is written, the exit status."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from tests.conftest import REPOSITORY

SHORT = ("trainer=cpu", "trainer.max_epochs=1", "data.limit=128", "trainer.threads=1")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )


@pytest.fixture
def typed(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[object, str, str]]]:
    """Does what the command does in this process; returns status, output and errors."""
    from convtrain.launch.command import run_command

    def run_here(*arguments: str) -> tuple[object, str, str]:
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as ended:
            run_command(arguments)
        return ended.value.code, *capfd.readouterr()

    yield run_here
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


def test_a_run_ends_with_its_results_and_the_commands_that_come_next(tmp_path: Path) -> None:
    done = run(*SHORT, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"{result['test/acc']:.2%}" in done.stdout
    assert str(tmp_path / "run") in done.stdout
    for command in ("tensorboard --logdir", f"resume={tmp_path / 'run'}", "model=nn"):
        assert command in done.stdout
    assert "epoch 1/1" in done.stderr
    assert "Warning" not in done.stderr
    assert (tmp_path / "run" / "train.log").read_text()

    again = run(f"resume={tmp_path / 'run'}")
    assert again.returncode == 0
    assert "is finished" in again.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result


def test_a_mistake_found_while_building_is_one_line_with_status_2(
    typed: Callable[..., tuple[object, str, str]], tmp_path: Path
) -> None:
    status, out, err = typed("network=vgg16_bn", f"hydra.run.dir={tmp_path / 'run'}")
    assert status == 2
    assert err.count("\n") == 1
    assert "Output size is too small" in err
    assert "Traceback" not in out + err
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_sweep_trains_every_combination_and_ends_with_one_table(tmp_path: Path) -> None:
    done = run(
        "-m", "model=functional,nn", "optimizer.lr=0.1,0.01", *SHORT, f"hydra.sweep.dir={tmp_path}"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    combinations = [(row["model"], row["optimizer.lr"]) for row in rows]
    expected = [(m, lr) for m in ("functional", "nn") for lr in ("0.1", "0.01")]
    assert combinations == expected
    assert [row["test/loss"] for row in rows[:2]] == [row["test/loss"] for row in rows[2:]]
    assert rows[0]["test/loss"] != rows[1]["test/loss"]
    for row in rows:
        result = json.loads((Path(row["run_dir"]) / "result.json").read_text())
        assert float(row["test/acc"]) == result["test/acc"]
    assert "optimizer.lr" in done.stdout
    assert str(tmp_path / "results.csv") in done.stdout


def test_a_failing_job_stops_no_other_and_the_status_tells(
    typed: Callable[..., tuple[object, str, str]], tmp_path: Path
) -> None:
    status, out, err = typed(
        "-m", "network=vgg16_bn,convnet", *SHORT, f"hydra.sweep.dir={tmp_path}"
    )
    assert status == 1
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["failed", "finished"]
    assert "Output size is too small" in rows[0]["error"]
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_two_runs_started_together_have_directories_of_their_own(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "train.py"), "debug=fast_dev_run", "trainer=cpu"]
    started = [subprocess.Popen(command, cwd=tmp_path, stdout=-3, stderr=-3) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    assert len(list((tmp_path / "logs" / "runs" / "convnet").iterdir())) == 2


@pytest.mark.slow
def test_two_processes_train_the_same_data_without_overlap(tmp_path: Path) -> None:
    done = run(
        "trainer=ddp_cpu", "trainer.max_epochs=2", "trainer.threads=1",
        f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 42
    assert result["test/acc"] > 0.9
    assert done.stdout.count("test accuracy") == 1
