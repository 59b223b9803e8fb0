"""Hydra's own keys and the values of a sweep: what Hydra would take without a word is one line."""

from pathlib import Path

import pytest

from convtrain.command.command_line import CommandLine
from convtrain.command.configure import configure_command
from tests.command.typed import check


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    with pytest.raises(SystemExit) as stopped:
        check(arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()


ONE_LINE = {
    "a sweep that is to be a run": (["-m", "hydra.mode=RUN"], "hydra.mode=RUN: leave it out"),
    "a run that is to be a sweep": (["++hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN: leave"),
    "a folder that does not exist": (
        ["hydra.searchpath=[file:///nope]"],
        "hydra.searchpath.0=file:///nope: no such folder",
    ),
    "a folder that is not in a list": (
        ["hydra.searchpath=/nope"],
        "hydra.searchpath=/nope: must be a list",
    ),
    "equal values": (["-m", "seed=1,1"], "seed=1,1: 1 is listed twice"),
    "equal values, spelt differently": (
        ["-m", "optimizer.lr=0.1,1e-1"],
        "optimizer.lr=0.1,1e-1: 0.1 is listed twice",
    ),
    "equal choices": (["-m", "model=nn,nn"], "model=nn,nn: nn is listed twice"),
    "equal lists": (["-m", "data.mean=[0.5],[0.5]"], "data.mean=[0.5],[0.5]: [0.5] is listed"),
    "equal values, sorted": (["-m", "seed=sort(2,1,2)"], "seed=sort(2,1,2): 2 is listed twice"),
    "nothing twice": (["-m", "trainer.threads=null,null"], "trainer.threads=null,null: null is"),
}


@pytest.mark.parametrize(("arguments", "start"), ONE_LINE.values(), ids=ONE_LINE)
def test_it_is_said_in_one_line(
    arguments: list[str], start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = refused(capsys, *arguments)
    assert line.startswith(start)


LAUNCHERS = {
    "basic": {"n_jobs": "2", "backend": "loky"},
    "joblib": {
        "backend": "nope", "prefer": "threads", "require": "sharedmem", "n_jobs": "0",
        "batch_size": "many", "pre_dispatch": "2*os", "mmap_mode": "x", "verbose": "-1",
        "timeout": "-1", "max_nbytes": "much", "nope": "1",
    },
    "submitit_local": {
        "timeout_min": "0", "cpus_per_task": "-1", "mem_gb": "0", "partition": "gpu",
        "setup": "[id]",
    },
    "submitit_slurm": {
        "array_parallelism": "0", "signal_delay_s": "-1", "max_num_timeout": "-1",
        "gpus_per_node": "-1", "setup": "id", "partitoin": "gpu",
    },
}  # fmt: skip
"""Keys that a launcher does not have, and values that it cannot take."""


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_knows_its_keys(launcher: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = LAUNCHERS[launcher]
    typed = [f"++hydra.launcher.{key}={value}" for key, value in wrong.items()]
    lines = refused(capsys, "-m", f"hydra/launcher={launcher}", "seed=1,2", *typed)
    for key, value in wrong.items():
        assert [text for text in lines if f"hydra.launcher.{key}={value}" in text], (key, lines)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_a_launchers_own_values_are_right(launcher: str) -> None:
    configure_command(
        CommandLine(overrides=[f"hydra/launcher={launcher}", "seed=1,2"], multirun=True)
    )


def test_choices_are_found_in_the_folders_of_the_search_path(tmp_path: Path) -> None:
    """Where convtrain has a choice of the same name, the file of the user wins."""
    for group, name, text in (
        (
            "optimizer",
            "mine",
            "name: sgd\nlr: 0.5\nmomentum: 0.0\nnesterov: false\nweight_decay: 0.0",
        ),
        ("optimizer", "adam", "defaults: [/optimizer/sgd@_here_, _self_]\nlr: 0.25"),
        ("experiment", "mine", "# @package _global_\nseed: 17"),
    ):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{name}.yaml").write_text(text)
    searched = f"hydra.searchpath=[file://{tmp_path}]"
    for overrides in (["optimizer=mine"], ["optimizer=adam", "experiment=mine"]):
        checked = configure_command(CommandLine(overrides=[searched, *overrides]))
        assert checked.configs[0].optimizer.lr in (0.5, 0.25)
    assert checked.configs[0].seed == 17
    both = configure_command(CommandLine(overrides=[searched, "optimizer=mine,sgd"], multirun=True))
    assert both.configs[0].optimizer.lr == 0.5
    beside = configure_command(CommandLine(overrides=["optimizer=mine"], extra_dir=tmp_path))
    assert beside.configs[0].optimizer.lr == 0.5
