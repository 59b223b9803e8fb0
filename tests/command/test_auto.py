"""``resume=auto`` finds the run that was left off, and no other."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.command.typed import check
from tests.conftest import compose

Leave = Callable[..., Path]


@pytest.fixture
def leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leave:
    """Make what a run leaves behind: its configuration, a checkpoint, a result if it has ended."""
    monkeypatch.chdir(tmp_path)
    ages = iter(range(10**6))

    def make(name: str, *overrides: str, saved: bool = True, finished: bool = False) -> Path:
        run = Path("logs", "runs", "convnet", name)
        (run / "checkpoints").mkdir(parents=True)
        plain = compose("trainer=cpu", *overrides).model_dump(by_alias=True)
        (run / "config.yaml").write_text(yaml.safe_dump(plain))
        age = next(ages)
        os.utime(run / "config.yaml", (age, age))
        if saved:
            (run / "checkpoints" / "last.ckpt").touch()
        if finished:
            (run / "result.json").touch()
        return run

    return make


def choose_run(typed: list[str]) -> list[str]:
    """Return the overrides that a command is left with."""
    return check(typed).command.overrides


def test_the_newest_unfinished_run_of_the_same_configuration_goes_on(leave: Leave) -> None:
    leave("a", "optimizer.lr=0.2")
    wanted = leave("b", "optimizer.lr=0.2")
    leave("c", "optimizer.lr=0.3")
    leave("d", "optimizer.lr=0.2", finished=True)
    leave("e", "optimizer.lr=0.2", saved=False)
    chosen = choose_run(["trainer=cpu", "resume=auto", "optimizer.lr=0.2"])
    assert chosen == [f"resume={wanted}"]


def test_where_none_is_left_off_a_new_run_begins(
    leave: Leave, capsys: pytest.CaptureFixture[str]
) -> None:
    leave("a", finished=True)
    assert choose_run(["trainer=cpu", "resume=auto", "seed=3"]) == ["trainer=cpu", "seed=3"]
    assert capsys.readouterr().err.count("\n") == 1


def test_what_may_change_is_kept(leave: Leave) -> None:
    wanted = leave("a", "trainer.max_epochs=5", "seed=2")
    typed = ["trainer=cpu", "trainer.max_epochs=9", "seed=2", "resume=auto"]
    assert choose_run(typed) == ["trainer.max_epochs=9", f"resume={wanted}"]
    resumed = compose("trainer.max_epochs=9", f"resume={wanted}")
    assert (resumed.seed, resumed.trainer.max_epochs) == (2, 9)


def test_a_run_of_several_devices_goes_on_on_as_many_or_others(leave: Leave) -> None:
    """What it stores is how it was started: ddp where it said auto, and the machines."""
    run = leave("a", "trainer.devices=2", "trainer.strategy=ddp", "trainer.num_nodes=2")
    for more in (["trainer.devices=2"], ["trainer.devices=3", "trainer.num_nodes=1"], []):
        assert choose_run(["trainer=cpu", *more, "resume=auto"]) == [*more, f"resume={run}"]
    fsdp = ["trainer=gpu", "trainer.strategy=fsdp"]
    assert choose_run([*fsdp, "resume=auto"]) == fsdp


def test_a_run_that_is_resumed_stays_where_it_is(
    leave: Leave, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = leave("a")
    here = [f"resume={run}", f"hydra.run.dir={run.absolute()}"]
    assert check(here).config.resume == str(run)
    with pytest.raises(SystemExit) as ended:
        check([f"resume={run}", f"hydra.run.dir={tmp_path}/new"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hydra.run.dir={tmp_path}/new: a run that is resumed stays in its")


def test_a_directory_that_was_given_is_looked_into(leave: Leave, tmp_path: Path) -> None:
    run = leave("a").rename(tmp_path / "given=this")
    chosen = choose_run(["trainer=cpu", f"hydra.run.dir='{run}'", "resume=auto"])
    assert chosen == [f"resume='{run}'"]
    assert compose(*chosen).resume == str(run)


def test_a_finished_run_in_the_directory_that_was_given_is_not_trained_again(
    leave: Leave, capsys: pytest.CaptureFixture[str]
) -> None:
    run = leave("a", finished=True)
    typed = ["trainer=cpu", f"hydra.run.dir={run}", "resume=auto"]
    assert choose_run(typed) == [f"resume={run}"]
    with pytest.raises(SystemExit):
        check([*typed, "seed=3"])
    assert "holds a finished run" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("finished", [True, False])
def test_a_new_run_in_the_directory_of_another_is_refused_and_loses_nothing(
    leave: Leave, capsys: pytest.CaptureFixture[str], finished: bool
) -> None:
    run = leave("a", finished=finished)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(SystemExit) as ended:
        check([f"hydra.run.dir={run}"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hydra.run.dir={run}: holds a ")
    assert ("another directory" if finished else f"resume={run}") in line
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_run_that_has_saved_nothing_may_begin_again(leave: Leave) -> None:
    run = leave("a", saved=False)
    assert check([f"hydra.run.dir={run}"]).config.resume is None


def test_where_something_is_wrong_no_run_is_looked_for(
    leave: Leave, capsys: pytest.CaptureFixture[str]
) -> None:
    leave("a")
    with pytest.raises(SystemExit):
        check(["trainer=cpu", "trainer.max_epochs=x", "resume=auto"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trainer.max_epochs=x: must be an integer")


def test_hydra_runs_what_was_found(leave: Leave) -> None:
    run = leave("a")
    whole = check(["trainer=cpu", "trainer.max_epochs=9", "resume=auto"]).composed.whole
    assert whole.hydra.run.dir == whole.resume == str(run)
    assert list(whole.hydra.overrides.task) == ["trainer.max_epochs=9", f"resume={run}"]


def test_a_sweep_cannot_be_resumed(leave: Leave, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        choose_run(["-m", "seed=1,2", "resume=auto"])
    assert ended.value.code == 2
    assert "resume=auto" in capsys.readouterr().err
