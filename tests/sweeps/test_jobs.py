"""One job of a sweep: trained, skipped, gone on with, or left alone, and nothing left over."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from convtrain.command.sweep import jobs_at_once
from convtrain.config.schema import Config
from convtrain.errors import TrainingError
from convtrain.process.signals import Signals
from convtrain.run.directory import Run
from convtrain.run.result import Result
from convtrain.sweeps.callback import begin_sweep
from convtrain.sweeps.jobs import JobSkippedError, NotStartedError, train_unless_done
from convtrain.sweeps.stopping import FILE
from tests.conftest import REPOSITORY, compose_once

RESULT: Result = {"val/acc": 0.5, "wall_time_seconds": 1.0}


class Trainings:
    """Stands for the training, and remembers each one."""

    def __init__(self, then: Callable[[Run], None] = lambda run: None) -> None:
        self.configs: list[Config] = []
        self.then = then

    def __call__(
        self, config: Config, run_dir: Path, overrides: Sequence[str], signals: Signals
    ) -> Result:
        run = Run(run_dir)
        self.configs.append(config)
        run.begin(config, overrides, {})
        run.checkpoints.mkdir(exist_ok=True)
        run.last_checkpoint.write_bytes(b"state")
        self.then(run)
        run.finish(RESULT)
        return RESULT


def once(train: Trainings, folder: Path, *overrides: str, job: str = "0") -> Result:
    return train_unless_done(train, compose_once(*overrides), folder / job, overrides, Signals())


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.read_bytes() for path in found}


def test_a_finished_job_is_not_trained_again(tmp_path: Path) -> None:
    train = Trainings()
    assert once(train, tmp_path, "seed=1") == RESULT
    assert once(train, tmp_path, "seed=1") == RESULT
    assert once(train, tmp_path, "seed=1", "callbacks.progress_bar=false") == RESULT
    assert len(train.configs) == 1


def test_another_configuration_does_not_take_the_place_of_a_job(tmp_path: Path) -> None:
    train = Trainings()
    once(train, tmp_path, "seed=1")
    before = contents(tmp_path / "0")
    with pytest.raises(JobSkippedError, match=r"holds a job with another seed, which stays"):
        once(train, tmp_path, "seed=2")
    assert [config.seed for config in train.configs] == [1]
    assert contents(tmp_path / "0") == before


def test_a_job_that_was_left_off_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    def killed(run: Run) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(Trainings(killed), tmp_path)
    train = Trainings()
    once(train, tmp_path)
    assert train.configs[0].resume == str(tmp_path / "0")


@pytest.mark.parametrize("damage", ["a: [", "- 1", "", "\x00"])
def test_a_job_whose_configuration_cannot_be_read_stays(tmp_path: Path, damage: str) -> None:
    train = Trainings()
    once(train, tmp_path)
    (tmp_path / "0" / "config.yaml").write_text(damage)
    before = contents(tmp_path / "0")
    with pytest.raises(JobSkippedError, match=r"config\.yaml: damaged, .*; remove .* to train"):
        once(train, tmp_path)
    assert contents(tmp_path / "0") == before


@pytest.mark.parametrize("damage", ["{", "[1]", "", "\x00"])
def test_a_result_that_cannot_be_read_is_made_again_from_the_checkpoint(
    tmp_path: Path, damage: str
) -> None:
    train = Trainings()
    once(train, tmp_path)
    (tmp_path / "0" / "result.json").write_text(damage)
    assert once(train, tmp_path) == RESULT
    assert [config.resume for config in train.configs] == [None, str(tmp_path / "0")]


def test_a_failed_job_is_left_alone_until_it_is_to_be_tried_again(tmp_path: Path) -> None:
    train = Trainings()
    (tmp_path / "0").mkdir()
    Run(tmp_path / "0").fail("no memory")
    with pytest.raises(JobSkippedError, match=r"add sweep.retry_failed=true .*: no memory$"):
        once(train, tmp_path)
    assert train.configs == []
    begin_sweep(tmp_path, retry_failed=True, jobs=1)
    assert once(train, tmp_path) == RESULT


def test_fail_fast_starts_no_job_after_one_has_failed(tmp_path: Path) -> None:
    train = Trainings()
    (tmp_path / "0").mkdir()
    Run(tmp_path / "0").fail("no memory")
    once(train, tmp_path, job="1")
    with pytest.raises(NotStartedError, match="job 0 has failed"):
        once(train, tmp_path, "sweep.fail_fast=true", job="2")
    assert once(train, tmp_path, "sweep.fail_fast=true", job="1") == RESULT
    assert len(train.configs) == 1


def test_nothing_of_the_environment_reaches_the_next_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    before = dict(os.environ)

    def disturb(run: Run) -> None:
        os.environ.update(MASTER_PORT="4711", KEPT="no")
        del os.environ["PATH"]

    once(Trainings(disturb), tmp_path)
    assert dict(os.environ) == before

    def fail(run: Run) -> None:
        disturb(run)
        raise TrainingError("too late")

    with pytest.raises(TrainingError):
        once(Trainings(fail), tmp_path, job="1")
    assert dict(os.environ) == before


OTHER = """
import sys
from pathlib import Path
from convtrain.run.directory import Run
from convtrain.process.lock import locked

with locked(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.readline()
    Run(sys.argv[1]).finish({"val/acc": 0.75})
"""


def test_a_job_that_another_process_trains_is_waited_for(tmp_path: Path, python: str) -> None:
    once(Trainings(), tmp_path)
    (tmp_path / "0" / "result.json").unlink()
    other = subprocess.Popen(
        [python, "-c", OTHER, str(tmp_path / "0")], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    train, found = Trainings(), []
    thread = threading.Thread(target=lambda: found.append(once(train, tmp_path)))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    other.communicate("go on\n")
    thread.join(30)
    assert found == [{"val/acc": 0.75}]
    assert train.configs == []


def test_a_stopped_sweep_stops_the_job_that_runs_and_starts_no_other(tmp_path: Path) -> None:
    with Signals() as signals:
        signals.busy = True

        def wait(run: Run) -> None:
            (tmp_path / FILE).write_text(f"{int(signal.SIGTERM)}\n")
            deadline = time.monotonic() + 20
            while signals.received is None and time.monotonic() < deadline:
                time.sleep(0.01)

        train_unless_done(Trainings(wait), compose_once(), tmp_path / "0", (), signals)
        assert signals.received == signal.SIGTERM
    with pytest.raises(NotStartedError, match="the sweep was stopped"):
        once(Trainings(), tmp_path, job="1")
    assert once(Trainings(), tmp_path, job="0") == RESULT


@pytest.mark.parametrize(
    ("launcher", "jobs", "gpus", "expected"),
    [
        ({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}, 12, None, 1),
        ({"_target_": "x.joblib_launcher.JoblibLauncher", "n_jobs": 3}, 12, None, 3),
        ({"_target_": "x.joblib_launcher.JoblibLauncher", "n_jobs": 3}, 2, None, 2),
        ({"_target_": "x.joblib_launcher.JoblibLauncher", "n_jobs": -1}, 12, None, 5),
        ({"_target_": "x.joblib_launcher.JoblibLauncher", "n_jobs": -2}, 12, None, 4),
        ({"_target_": "x.submitit_launcher.LocalLauncher"}, 12, None, 12),
        ({"_target_": "x.submitit_launcher.LocalLauncher"}, 12, ["0", "1"], 2),
        ({"_target_": "x.submitit_launcher.SlurmLauncher"}, 12, None, 1),
    ],
)
def test_how_many_jobs_share_the_machine(
    launcher: dict[str, Any], jobs: int, gpus: list[str] | None, expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from omegaconf import OmegaConf

    monkeypatch.setattr("convtrain.command.sweep.cores", lambda: 5)
    hydra: Any = OmegaConf.create({"launcher": launcher, "sweeper": {}})
    assert jobs_at_once(hydra, jobs, gpus) == expected
    hydra.sweeper = {"n_jobs": 1}  # a search that proposes one at a time
    assert jobs_at_once(hydra, jobs, gpus) == 1
