"""A signal to the command of a sweep whose jobs run in other processes."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.sweeps.sweeping import Sweep, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]
JOBS = ("seed=1,2,3", "trainer.max_epochs=150", "trainer.threads=1")


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_all_jobs_save_and_go_on_without_a_step_taken_twice(tmp_path: Path, launcher: str) -> None:
    sweep = Sweep(tmp_path)
    arguments = (*JOBS, f"hydra/launcher={launcher}")
    process = sweep.start(*arguments)
    try:
        wait_until(lambda: len({step["job"] for step in sweep.steps()}) == 2)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 143, err
        assert "0 of 3 jobs finished" in out
        assert "unfinished" in out
        wait_until(lambda: not list(sweep.processes()), 30)
    finally:
        sweep.kill()
    status, out, err = sweep.run(*arguments)
    assert status == 0, err
    assert "3 of 3 jobs finished" in out
    for job in ("0", "1", "2"):
        taken = [step["step"] for step in sweep.steps() if step["job"] == job]
        assert taken == list(range(1, sweep.results()[job]["steps"] + 1))


def test_ctrl_c_reaches_command_and_workers_together(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    process = sweep.start(*JOBS, "hydra/launcher=joblib", new_session=True)
    try:
        wait_until(lambda: len({step["job"] for step in sweep.steps()}) == 2)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        sweep.kill()
    assert process.returncode == 130, err
    assert "0 of 3 jobs finished, 2 unfinished, 1 not started" in out
    assert "Traceback" not in out + err
