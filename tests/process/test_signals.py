"""A run that is asked to stop, as a shell, a scheduler or a sweep sees it."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convtrain.gradients import load
from convtrain.process.signals import Interrupted, Signals
from tests.conftest import REPOSITORY

LONG = (
    "trainer=cpu", "trainer.threads=1", "trainer.max_epochs=2000", "callbacks.progress_bar=false",
    "logger=csv", "recorder=off",
)  # fmt: skip


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "train.py", *arguments], cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def end(process: "subprocess.Popen[str]", signum: int) -> tuple[int, str, str]:
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def in_child(action: object) -> int:
    """Return the status of a process that runs an action."""
    child = os.fork()
    if child == 0:
        try:
            action()  # type: ignore[operator]
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_the_first_signal_is_remembered_and_a_second_ends_the_process_at_once(name: str) -> None:
    signum = signal.Signals[name]

    def asked_twice() -> None:
        with Signals() as signals:
            signals.busy = True
            os.kill(os.getpid(), signum)
            assert signals.received == signum
            os.kill(os.getpid(), signum)

    assert in_child(asked_twice) == 128 + signum


def test_nohup_keeps_a_run_from_being_stopped_with_its_terminal() -> None:
    def under_nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os._exit(0 if signals.received is None else 1)

    assert in_child(under_nohup) == 0


def test_a_rank_stops_when_its_launcher_has_died() -> None:
    """The launcher is a child of this process, and the rank a child of it."""
    reading, writing = os.pipe()

    def launcher() -> None:
        if os.fork() == 0:
            with Signals() as signals:
                signals.busy = True
                signals.end_with_parent()
                while signals.received is None:
                    time.sleep(0.05)
                os.write(writing, bytes([signals.received]))
                os._exit(0)
        time.sleep(0.3)
        os._exit(0)

    assert in_child(launcher) == 0
    assert os.read(reading, 1)[0] == signal.SIGTERM
    os.close(reading)
    os.close(writing)


def test_a_run_that_is_not_busy_ends_there_and_then() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as raised, Signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_signal_ends_a_sweep_and_the_other_jobs_are_not_started(
    tmp_path: Path, name: str
) -> None:
    place = (f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=${hydra.job.num}")
    process = start("-m", "seed=1,2,3", *LONG, *place)
    wait_for(tmp_path / "0" / "checkpoints" / "last.ckpt")
    status, out, err = end(process, signal.Signals[name])
    assert status == 128 + signal.Signals[name]
    assert not (tmp_path / "1").exists()
    assert not (tmp_path / "0" / "result.json").exists()
    assert "unfinished" in (tmp_path / "results.csv").read_text()
    (advice,) = [line for line in err.splitlines() if "; to resume: " in line]
    assert "python train.py -m " in advice
    assert " 'hydra.sweep.subdir=${hydra.job.num}' " in advice
    assert f" hydra.sweep.dir={tmp_path} " in advice
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_slurm_s_signal_saves_and_puts_the_job_into_the_queue_again(tmp_path: Path) -> None:
    stub = tmp_path / "bin" / "scontrol"
    stub.parent.mkdir()
    saved = tmp_path / "run" / "checkpoints" / "last.ckpt"
    stub.write_text(f'#!/bin/sh\ntest -f {saved} && echo "$@" > {tmp_path}/called\n')
    stub.chmod(0o755)
    slurm = {"PATH": f"{stub.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"}
    process = start(*LONG, f"hydra.run.dir={tmp_path / 'run'}", **slurm)
    wait_for(tmp_path / "run" / "metrics.csv")
    status, _, err = end(process, signal.SIGUSR1)
    assert status == 128 + signal.SIGUSR1
    assert (tmp_path / "called").read_text() == "requeue 4711\n"
    assert "resume=" in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_stopped_run_goes_on_to_the_same_end(tmp_path: Path, name: str, trainer: str) -> None:
    settings = (*LONG, f"trainer={trainer}", "trainer.max_epochs=30")
    whole = start(*settings, f"hydra.run.dir={tmp_path / 'whole'}")
    assert whole.wait() == 0
    process = start(*settings, f"hydra.run.dir={tmp_path / 'run'}")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
    status, _, err = end(process, signal.Signals[name])
    assert status == 128 + signal.Signals[name], err
    again = start(f"resume={tmp_path / 'run'}")
    assert again.wait() == 0
    results = [json.loads((tmp_path / n / "result.json").read_text()) for n in ("whole", "run")]
    for key in ("train/loss_epoch", "val/loss", "test/loss", "test/acc", "steps", "epochs"):
        assert results[0][key] == results[1][key], key


@pytest.mark.slow
def test_asked_to_stop_at_moments_that_nobody_chose_it_ends_as_if_never_asked(
    tmp_path: Path,
) -> None:
    """In steps that are half done and in validations, which here take most of the time."""
    settings = (
        *LONG, "trainer.max_epochs=40", "trainer.val_check_interval=0.25", "network=resnet8",
        "trainer.accumulate_grad_batches=2", "data.limit=640", "data.eval_batch_size=16",
        "data.val_fraction=0.3",
    )  # fmt: skip
    whole, run, moments = tmp_path / "whole", tmp_path / "run", random.Random(5)
    assert start(*settings, f"hydra.run.dir={whole}").wait() == 0
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGTERM"):
        process = start(*settings, f"hydra.run.dir={run}", "resume=auto")
        seen = (run / "config.yaml").stat().st_mtime_ns if run.exists() else 0
        while not (run / "config.yaml").exists() or (
            (run / "config.yaml").stat().st_mtime_ns == seen and process.poll() is None
        ):
            time.sleep(0.01)
        time.sleep(moments.uniform(0.2, 1))
        status, _, err = end(process, signal.Signals[name])
        assert status == 128 + signal.Signals[name], err
        said = f"to resume: python train.py resume={run}", "before anything was saved"
        assert err.splitlines()[-1].endswith(said)  # the latter on a busy machine
    assert start(*settings, f"hydra.run.dir={run}", "resume=auto").wait() == 0
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (whole, run))
    for key in ("train/loss_epoch", "val/loss", "test/loss", "test/acc", "steps", "epochs"):
        assert first[key] == second[key], key
    assert without_speed(whole / "metrics.csv") == without_speed(run / "metrics.csv")


@pytest.mark.slow
def test_the_same_command_again_and_again_ends_as_if_never_killed(tmp_path: Path) -> None:
    """SIGKILL at moments that nobody chose; bounded to about three minutes."""
    settings = (
        *LONG, "trainer.max_epochs=60", "callbacks.checkpoint.every_n_steps=7",
        "trainer.val_check_interval=0.5", "recorder=norms", "recorder.max_overhead=1",
        "network=resnet8", "data.limit=640",
    )  # fmt: skip
    whole = start(*settings, f"hydra.run.dir={tmp_path / 'whole'}")
    assert whole.wait() == 0
    moments, deadline, run = random.Random(7), time.monotonic() + 100, tmp_path / "run"
    kills = 0
    while True:
        process = start(*settings, f"hydra.run.dir={run}", "resume=auto")
        if time.monotonic() < deadline:
            began = run / "config.yaml"
            age = began.stat().st_mtime if began.exists() else 0
            while process.poll() is None and not (began.exists() and began.stat().st_mtime > age):
                time.sleep(0.01)
            time.sleep(moments.uniform(0.2, 3))
        else:
            process.wait(timeout=120)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert process.returncode == 0
    assert kills > 3
    folders = (tmp_path / "whole", run)
    first, second = (json.loads((folder / "result.json").read_text()) for folder in folders)
    for key in ("train/loss_epoch", "val/loss", "test/loss", "test/acc", "steps", "epochs"):
        assert first[key] == second[key], key
    first, second = (load(folder, "steps").drop(["time"]) for folder in folders)
    assert repr(first.to_pylist()) == repr(second.to_pylist())
    first, second = (without_speed(folder / "metrics.csv") for folder in folders)
    assert first == second


def without_speed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{**row, "images_per_second": ""} for row in csv.DictReader(file)]
