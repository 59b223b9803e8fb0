"""The door to a run's directory, from the command line and from Python: nobody loses anything."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import convtrain
from convtrain.__main__ import main
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, ConvtrainError, CorruptDataError, OccupiedError
from convtrain.launch.job import run_job
from convtrain.process import lock
from convtrain.process.lock import locked
from convtrain.run.directory import Run
from convtrain.training.task import Task
from tests.command.typed import check
from tests.conftest import QUICK, compose
from tests.killing import nth_call

SMALL = (
    *QUICK, "data.limit=64", "data.batch_size=16", "network=lstm", "logger=csv", "recorder=off",
    "trainer.max_epochs=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    convtrain.train(compose(*SMALL), str(run))
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(shutil.copytree(finished, Path("logs/runs/lstm/a")))


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.read_bytes() for path in found}


def resuming(run: Run, *overrides: str) -> Config:
    return compose(f"resume={run.path}", *overrides)


# --- a run that is there --------------------------------------------------------------------------


@pytest.mark.parametrize("finishes", [True, False])
def test_python_does_not_train_over_a_run(run: Run, finishes: bool) -> None:
    if not finishes:
        run.result.unlink()
    before = contents(run.path)
    with pytest.raises(OccupiedError, match=r"holds a (finished )?run"):
        convtrain.train(compose(*SMALL), str(run.path))
    assert contents(run.path) == before


def test_a_finished_run_is_resumed_to_its_result(run: Run) -> None:
    before = contents(run.path)
    assert convtrain.train(resuming(run), run.path) == run.read_result()
    assert contents(run.path) == before


def test_no_rank_trains_a_finished_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convtrain.launch.start.is_main_process", lambda: False)
    before = contents(run.path)
    assert convtrain.train(resuming(run), run.path) == run.read_result()
    assert contents(run.path) == before


def test_one_run_is_not_resumed_in_the_directory_of_another(run: Run, tmp_path: Path) -> None:
    with pytest.raises(OccupiedError, match="a run that is resumed stays in its directory"):
        convtrain.train(resuming(run), tmp_path / "b")
    other = compose(*SMALL, "seed=2").model_copy(update={"resume": str(run.path)})
    with pytest.raises(OccupiedError, match="is a run with another seed"):
        convtrain.train(other, run.path)


@pytest.mark.parametrize("finishes", [True, False])
@pytest.mark.parametrize(
    ("limit", "done"), [("max_epochs=1", 2), ("max_steps=7", 8), ("max_steps=1", 8)]
)
def test_a_limit_below_what_is_done_is_refused(
    run: Run, limit: str, done: int, finishes: bool
) -> None:
    if not finishes:
        run.result.unlink()
    with pytest.raises(ConfigError) as raised:
        convtrain.train(resuming(run, f"trainer.{limit}"), run.path)
    assert str(raised.value) == (
        f"trainer.{limit}: the run has reached {done} already; give {done} or more, or leave it out"
    )


@pytest.mark.parametrize("limit", ["max_epochs=2", "max_steps=8"])
def test_a_limit_that_is_reached_ends_the_run(run: Run, limit: str) -> None:
    run.result.unlink()
    result = convtrain.train(resuming(run, f"trainer.{limit}"), run.path)
    assert (result["steps"], result["epochs"]) == (8, 2)


def test_a_run_that_was_ended_before_its_first_checkpoint_begins_again(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    expected, rows = run.read_result(), (run.path / "metrics.csv").read_text()
    assert expected is not None
    run.result.unlink()
    shutil.rmtree(run.checkpoints)
    result = convtrain.train(resuming(run), run.path)
    assert result["test/loss"] == expected["test/loss"]
    assert len((run.path / "metrics.csv").read_text().splitlines()) == len(rows.splitlines())
    assert "before its first checkpoint, so it restarts" in caplog.text


def test_a_finished_run_without_checkpoints_is_not_begun_again(run: Run) -> None:
    shutil.rmtree(run.checkpoints)
    with pytest.raises(ConfigError, match="is finished and has no checkpoint to resume from"):
        resuming(run, "trainer.max_epochs=9")
    assert main(["rerun", str(run.path)]) == 2
    assert [path.name for path in run.path.parent.iterdir()] == ["a"]


# --- what a run is resumed with -------------------------------------------------------------------


def test_the_checkpoint_of_another_run_is_not_resumed_from(run: Run, finished: Path) -> None:
    run.result.unlink()
    provenance = run.read_provenance()
    run.provenance.write_text(json.dumps({**provenance, "run_id": "of another"}))
    with pytest.raises(CorruptDataError, match=r"last\.ckpt: is a checkpoint of another run"):
        convtrain.train(resuming(run), run.path)


@pytest.mark.parametrize("known", [{}, None], ids=["without a word on it", "damaged"])
def test_a_run_of_an_older_version_is_resumed(
    run: Run, known: dict[str, Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    run.result.unlink()
    run.provenance.write_text("{" if known is None else json.dumps(known))
    assert convtrain.train(resuming(run), run.path)["steps"] == 8
    assert ("provenance.json: damaged" in caplog.text) == (known is None)
    assert run.read_provenance()["run_id"]


def test_data_that_have_changed_are_refused_until_they_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        file = tmp_path / "images" / "ab"[number % 2] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (8, 8), 10 * number).save(file)
    overrides = (
        *QUICK, "network=lstm", "data=image_folder", f"data.root={tmp_path}/images",
        "data.shape=[1,8,8]", "data.mean=[0]", "data.std=[1]", "data.batch_size=8", "logger=none",
        "recorder=off", "data.val_fraction=0.2", "data.test_fraction=0.2",
    )  # fmt: skip
    run = Run("run")
    convtrain.train(compose(*overrides), run.path)
    run.result.unlink()
    PIL.Image.new("L", (8, 8), 255).save(tmp_path / "images" / "a" / "00.png")
    line = (
        f"data.root={tmp_path}/images: the images, their classes or their splits are not those "
        f"that run was trained on; bring them back, or type data.allow_change=true to resume with "
        f"these"
    )
    with pytest.raises(ConfigError) as raised:
        convtrain.train(resuming(run), run.path)
    assert str(raised.value) == line
    convtrain.train(resuming(run, "data.allow_change=true"), run.path)
    run.result.unlink()
    convtrain.train(resuming(run), run.path)  # with what was allowed
    run.result.unlink()
    (tmp_path / "images" / "b" / "01.png").unlink()
    with pytest.raises(ConfigError, match=r"data\.allow_change=true"):
        convtrain.train(resuming(run), run.path)


# --- damaged files --------------------------------------------------------------------------------


DAMAGES = {
    "cut": "{a: [",
    "a list": "[1, 2]",
    "empty": "",
    "no text": "\x00",
    "a number": "trainer: 3",
}
READERS: dict[str, Callable[[Run], Any]] = {
    "diff": lambda run: main(["diff", str(run.path), str(run.path)]),
    "rerun": lambda run: main(["rerun", str(run.path)]),
    "resume": lambda run: main(["check", f"resume={run.path}"]),
    "Python": lambda run: convtrain.train(resuming(run), run.path),
}
NEEDED = {
    "diff": ("config.yaml", "result.json"), "rerun": ("config.yaml", "result.json"),
    "resume": ("config.yaml",), "Python": ("config.yaml", "result.json"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_of_a_run_is_named_in_one_line(
    run: Run, reader: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.yaml", "result.json", "overrides.yaml"):
        whole = (run.path / name).read_text()
        (run.path / name).write_text(DAMAGES[damage])
        status, line = 0, ""
        try:
            status = READERS[reader](run)
        except ConvtrainError as error:
            status, line = error.exit_status, str(error)
        said = line or capsys.readouterr().err
        assert "Traceback" not in said
        needed = name in NEEDED[reader] and not (reader == "diff" and damage == "a number")
        if needed:
            assert status in (1, 2), name
            assert name in said or (damage == "a number" and "trainer" in said)
        (run.path / name).write_text(whole)
        if reader == "rerun":
            for other in run.path.parent.glob("a-rerun-*"):
                shutil.rmtree(other)


# --- two at once ----------------------------------------------------------------------------------


def typed(*arguments: str) -> None:
    check(arguments)


def as_a_job(run: Run) -> None:
    """Come to the directory after the command line was checked, as a race would have it."""
    run_job(lambda: resuming(run), run_dir=run.path, overrides=[], multirun=False)


WRITERS: dict[str, Callable[[Run], Any]] = {
    "train": lambda run: typed(*SMALL, "seed=2", f"hydra.run.dir={run.path}"),
    "resume": lambda run: typed(f"resume={run.path}"),
    "resume=auto": lambda run: typed(*SMALL, "resume=auto"),
    "job": as_a_job,
    "Python": lambda run: convtrain.train(compose(*SMALL), run.path),
    "Python resumes": lambda run: convtrain.train(resuming(run), run.path),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.2)


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("writer", WRITERS)
def test_the_second_who_writes_a_run_is_refused_and_told_who_is_there(
    run: Run, writer: str, saved: bool, impatient: None, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    run.result.unlink()
    if not saved:
        shutil.rmtree(run.checkpoints)
    before, status, line = contents(run.path), 0, ""
    with locked(run.path):
        try:
            WRITERS[writer](run)
        except OccupiedError as error:
            status, line = error.exit_status, str(error)
        except SystemExit as ended:
            status, line = int(ended.code or 0), capsys.readouterr().err + caplog.text
    assert status == 2
    assert f"process {os.getpid()} on {socket.gethostname()} since " in line
    assert contents(run.path) == before


def test_rerun_does_not_write_where_another_is(
    run: Run, impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(Path("other")):
        assert main(["rerun", str(run.path), "--out", "other"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_first_is_waited_for_where_it_is_about_to_end(run: Run) -> None:
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with locked(run.path):
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(20)
    threading.Timer(0.3, leave.set).start()
    with locked(run.path):
        pass
    thread.join()


def test_two_threads_do_not_train_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would share torch's random state, and both train to other weights than alone."""
    refused: list[BaseException] = []

    def second() -> None:
        try:
            convtrain.train(compose(*SMALL, "seed=2"), tmp_path / "b")
        except ConfigError as error:
            refused.append(error)

    def meanwhile() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    monkeypatch.setattr(Task, "training_step", nth_call(3, meanwhile, Task.training_step))
    result = convtrain.train(compose(*SMALL), tmp_path / "a")
    assert "another training runs in this process" in str(refused[0])
    assert result["steps"] == 8
