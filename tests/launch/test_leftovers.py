"""Ten seconds after a command, however it has ended, no process of it is left."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from convtrain.sweeps import leftovers
from tests.launch.test_processes import Command, linux, wait_for

pytestmark = linux

LIMIT = 10  # seconds
SETTINGS = (
    "trainer.accelerator=cpu", "trainer.max_epochs=2000", "callbacks.progress_bar=false",
    "logger=csv", "recorder=off", "data.limit=128", "scheduler=none", "network=lstm",
)  # fmt: skip
SWEEP = ("train.py", "-m", "seed=1,2,3,4")
STARTS = {
    "alone": ("train.py",),
    "ddp": ("train.py", "trainer=ddp_cpu"),
    "torchrun": (
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py",
    ),
    "sweep": SWEEP,
    "sweep of ddp": (*SWEEP, "trainer=ddp_cpu"),
    "joblib": (*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=-1"),
    "local_gpus": (*SWEEP, "hydra/launcher=local_gpus", "sweep.gpus=[0,1]"),
    "submitit": ("train.py", "-m", "seed=1,2", "hydra/launcher=submitit_local"),
    "submitit of ddp": (
        "train.py", "-m", "seed=1", "hydra/launcher=submitit_local", "trainer=ddp_cpu",
    ),
}  # fmt: skip
ENDS = {
    "SIGINT": (signal.SIGINT, False, 1),
    "SIGINT twice": (signal.SIGINT, False, 2),
    "SIGINT to the group": (signal.SIGINT, True, 1),
    "SIGINT to the group twice": (signal.SIGINT, True, 2),
    "SIGTERM": (signal.SIGTERM, False, 1),
    "SIGHUP": (signal.SIGHUP, False, 1),
    "SIGHUP to the group": (signal.SIGHUP, True, 1),
    "SIGKILL": (signal.SIGKILL, False, 1),
}


def test_what_a_command_leaves_behind_is_asked_to_save_and_then_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "GRACE_SECONDS", 0.5)
    deaf, other = (
        subprocess.Popen(["sleep", "60"], env={leftovers.MARK: mark}) for mark in ("a", "b")
    )
    leftovers.end_leftovers("a", tmp_path / "stop")
    assert deaf.wait(timeout=1) == -signal.SIGKILL
    assert (tmp_path / "stop").read_text() == "15\n"
    assert other.poll() is None
    other.kill()
    other.wait()
    leftovers.end_leftovers("a", tmp_path / "not asked")
    assert not (tmp_path / "not asked").exists()


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("start", STARTS)
def test_nothing_of_a_command_is_left(
    tmp_path: Path, start: str, end: tuple[int, bool, int]
) -> None:
    signum, to_group, times = end
    several = "-m" in STARTS[start] and start != "torchrun"
    place = "hydra.sweep.dir" if several else "hydra.run.dir"
    named = ["hydra.sweep.subdir=${hydra.job.num}"] * several
    command = Command(*STARTS[start], *SETTINGS, *named, f"{place}={tmp_path / 'run'}")
    try:
        wait_for(tmp_path / "run" / ("0" * several) / "checkpoints" / "last.ckpt")
        for _ in range(times):
            (os.killpg if to_group else os.kill)(command.process.pid, signum)
            time.sleep(0.3)
        command.process.wait(timeout=60)
        ended = time.monotonic()
        while (left := command.describe()) and time.monotonic() - ended < LIMIT:
            time.sleep(0.2)
        assert not left
    finally:
        command.kill()
