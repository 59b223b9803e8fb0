"""A sweep that its sweeper cannot carry out is refused in one line, before its first job."""

import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from convtrain.__main__ import main
from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_command
from convtrain.command.configure import configure_command
from convtrain.run.directory import Run
from convtrain.run.result import Result
from convtrain.sweeps.callback import close_sweep
from convtrain.sweeps.reading import job_folders, read_sweep
from tests.command.typed import check
from tests.conftest import compose

SEARCH = ["hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.1)"]
TWICE = "two jobs could get one directory; type hydra.sweep.subdir="
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "a search": (
        [
            *SEARCH, "hydra.sweeper.n_trials=0", "hydra.sweeper.n_jobs=0",
            "hydra.sweeper.direction=nope", "hydra.sweeper.storage=sqlite:///x",
            "hydra.sweeper.max_failure_rate=2",
            "trainer.limit_val_batches=0", "seed=1,2", "++seed=3",
            "data.val_fraction=interval(0.2,0.1)",
            "optimizer.weight_decay=tag(log,interval(0,0.1))",
        ],
        [
            "seed=1,2: seed is given twice; type it once",
            "hydra.sweeper.n_trials=0: must be at least 1",
            "hydra.sweeper.n_jobs=0: must be at least 1",
            "sweep.metric=val/acc: is not measured with trainer.limit_val_batches=0; validate",
            "hydra.sweeper.storage: a stored study",
            "hydra.sweeper.max_failure_rate=2",
            "hydra.sweeper.direction=nope: must be minimize or maximize",
            "data.val_fraction=interval(0.2,0.1): must begin below its end, 0.1",
            "optimizer.weight_decay=tag(log,interval(0,0.1)): a logarithmic interval must begin",
        ],
    ),
    "a grid": (
        [
            *SEARCH, "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=-1",
            "hydra.sweeper.direction=[minimize,maximize]",
        ],
        [
            "hydra.sweeper.n_trials=-1: must be at least 1",
            "hydra.sweeper.direction=[minimize, maximize]: must be minimize or maximize",
            "optimizer.lr=interval(0.01,0.1): hydra/sweeper/sampler=grid tries listed values; li",
        ],
    ),
    "ends of intervals": (
        [
            "hydra/sweeper=optuna", "optimizer.lr=interval(-1,1)",
            "optimizer.momentum=interval(0.5,1.5)", "data.batch_size=interval(16.5,32)",
        ],
        [
            "data.batch_size=16.5: must be an integer", "optimizer.lr=-1.0: must be greater than 0",
            "optimizer.momentum=1.5: must be less", "data.batch_size=32.0: must be an integer",
        ],
    ),
    "nothing to search": (
        ["hydra/sweeper=optuna", "seed=1"], ["hydra/sweeper=optuna: nothing to search"],
    ),
    "lists": (
        [
            "seed=1,2", "seed=3,4", "hydra.sweeper.max_batch_size=0",
            "optimizer.lr=interval(0.1,0.2)", "hydra.sweep.subdir='s${seed}'",
        ],
        [
            "seed=1,2: seed is given twice", "seed=3,4: seed is given twice",
            "hydra.sweep.subdir=s${seed}: " + TWICE + "'${hydra.job.num}_s${seed}'",
            "hydra.sweeper.max_batch_size=0: must be at least 1",
            "optimizer.lr=interval(0.1,0.2): hydra/sweeper=basic tries listed values only; list",
        ],
    ),
    "directories by all values": (
        ["seed=1,2", "hydra.sweep.subdir=${hydra.job.override_dirname}"],
        ["hydra.sweep.subdir=${hydra.job.override_dirname}: " + TWICE],
    ),
    "one directory": (
        ["seed=1,2", "hydra.sweep.subdir=x"], ["hydra.sweep.subdir=x: " + TWICE],
    ),
    "folders of directories": (
        ["seed=1,2", "hydra.sweep.subdir='a/${hydra.job.num}'"],
        ["hydra.sweep.subdir=a/${hydra.job.num}: must be one folder's name"],
    ),
    "hidden directories": (
        ["seed=1,2", "hydra.sweep.subdir='.${hydra.job.num}'"],
        ["hydra.sweep.subdir=.${hydra.job.num}: must be one folder's name"],
    ),
    "directories in folders that are values": (
        ["data.root=a,b/c", "hydra.sweep.subdir='${hydra.job.num}_${data.root}'"],
        ["hydra.sweep.subdir=${hydra.job.num}_${data.root}: must be one folder's name"],
    ),
    "a directory that submitit rewrites": (
        ["seed=1,2", "hydra/launcher=submitit_local", "hydra.sweep.dir='a%j'"],
        ["hydra.sweep.dir=a%j: submitit and SLURM replace %j and the like"],
    ),
    "declared": (
        ["+hydra.sweeper.params={seed: '1,x', data.limit: '[1'}"],
        ["hydra.sweeper.params.data.limit=[1: cannot be read as ", "seed=x: must be an integer"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_swept_is_a_line_each_for_check_and_train(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = REFUSED[name]
    with pytest.raises(SystemExit) as stopped:
        check(["-m", *arguments])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    for line, says in zip(lines, expected, strict=True):
        assert line.startswith(says)
    if name in ("lists", "a search"):
        assert main(["check", "-m", *arguments]) == 2
        assert capsys.readouterr().err.splitlines() == lines


JOBS = {
    "values": (["seed=1,2", "optimizer.lr=0.1,0.2,0.3"], 6),
    "declared": (["+hydra.sweeper.params={seed: '1,2,3'}"], 3),
    "declared, and typed in its place": (["+hydra.sweeper.params={seed: '1,2,3'}", "seed=4,5"], 2),
    "a search": ([*SEARCH, "hydra.sweeper.n_trials=7"], 7),
    "a grid": (["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "seed=1,2,3"], 3),
    "named": (["seed=1,2", "hydra.sweep.subdir='${hydra.job.num}_lr${optimizer.lr}'"], 2),
}  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_jobs_are_counted_as_they_will_be(name: str) -> None:
    arguments, jobs = JOBS[name]
    assert check(["-m", *arguments]).settings["hydra.callbacks.sweep_table.jobs"] == jobs


VARIED = {
    "seed": ("1", "2"), "optimizer": ("adam", "sgd"), "optimizer.lr": ("0.1", "1e-3"),
    "data.mean": ("[0.1]", "[0.2]"), "network.name": ("a", "b"), "sweep.gpus": ("[0]", "auto"),
    "callbacks.early_stopping.patience": ("null", "3"), "data.root": ("a", "'b c'"),
    "+network.parametrize": ("{}", "null"), "trust": ("[a]", "[b]"),
}  # fmt: skip


def test_another_value_is_checked_as_if_it_had_been_composed() -> None:
    swept = [f"{key}={','.join(values)}" for key, values in VARIED.items()]
    found = list(compose_command(CommandLine(overrides=swept, multirun=True)))
    assert len(found) == 1 + len(VARIED)
    first = {key: values[0] for key, values in VARIED.items()}
    variants = [first] + [{**first, key: values[1]} for key, values in VARIED.items()]
    for composed, chosen in zip(found, variants, strict=True):
        texts = [f"{key}={value}" for key, value in chosen.items()]
        (alone,) = compose_command(CommandLine(overrides=texts))
        assert OmegaConf.to_container(composed.config) == OmegaConf.to_container(alone.config)


def test_many_values_of_a_key_are_checked_without_composing_each() -> None:
    def seconds(count: int) -> float:
        began = time.process_time()
        checked = configure_command(
            CommandLine.parse(["-m", f"seed={','.join(map(str, range(count)))}"])
        )
        assert [config.seed for config in checked.configs] == list(range(count))
        return time.process_time() - began

    one = seconds(1)
    assert (seconds(31) - one) / 30 < one / 3


RESULT: Result = {"val/acc": 0.5, "wall_time_seconds": 1.0}


def test_directories_of_any_name_are_found_and_sorted_by_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        run = Run(tmp_path / f"{number}_lr0.1")
        run.begin(compose(f"seed={number}"), [f"seed={number}"], {})
        run.finish(RESULT)
    (tmp_path / ".submitit").mkdir()
    (tmp_path / "notes").mkdir()
    assert [path.name for path in job_folders(tmp_path)] == ["2_lr0.1", "9_lr0.1", "10_lr0.1"]
    assert read_sweep(tmp_path).is_finished


def test_a_metric_that_is_missing_is_said_and_makes_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking: Result = {"wall_time_seconds": 1.0}
    for name, result in (("0", RESULT), ("1", lacking)):
        run = Run(tmp_path / name)
        run.begin(compose(f"seed={name}"), [f"seed={name}"], {})
        run.finish(result)
    assert close_sweep(tmp_path) is False
    printed = capsys.readouterr().out
    assert "sweep.metric=val/acc: not measured by jobs 1" in printed
    assert "2 of 2 jobs finished" in printed
