"""A sweep through submitit: on a scheduler, and in its local mode; ended by it and queued again."""

import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.sweeps import slurm_stub
from tests.sweeps.sweeping import Sweep, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]
LONG = ("trainer.max_epochs=300", "trainer.threads=1")  # some seconds
SAME = ("val/acc", "val/loss", "test/acc", "test/loss", "steps", "epochs")


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Return the environment in which the commands of SLURM are the stub's."""
    queue, commands = tmp_path / "queue", tmp_path / "bin"
    queue.mkdir()
    commands.mkdir()
    for name in ("sbatch", "srun", "sacct", "scontrol"):
        command = commands / name
        command.write_text(
            f"#!{sys.executable}\n"
            f"import sys\nsys.argv[0] = {name!r}\n"
            f"__file__ = {slurm_stub.__file__!r}\nexec(open(__file__).read())\n"
        )
        command.chmod(0o755)
    return {"PATH": f"{commands}:{os.environ['PATH']}", "STUB_QUEUE": str(queue)}


def preempt(sweep: Sweep, job: str) -> None:
    """Send a job what SLURM sends before the time is up."""
    wait_until(lambda: len([s for s in sweep.steps() if s["job"] == job]) > 20)
    pid = next(step["pid"] for step in sweep.steps() if step["job"] == job)
    os.kill(pid, signal.SIGUSR2)


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_a_job_whose_time_is_up_saves_is_queued_again_and_goes_on(
    tmp_path: Path, cluster: dict[str, str], launcher: str
) -> None:
    sweep = Sweep(tmp_path)
    arguments = ("seed=1,2", f"hydra/launcher={launcher}", "hydra.launcher.gpus_per_node=null")
    process = sweep.start(*arguments, *LONG, new_session=False, **cluster)
    try:
        preempt(sweep, "1")
        out, err = process.communicate(timeout=200)
    finally:
        sweep.kill()
    assert process.returncode == 0, err
    assert "2 of 2 jobs finished" in out
    taken = {job: [s["step"] for s in sweep.steps() if s["job"] == job] for job in ("0", "1")}
    last = sweep.results()["0"]["steps"]
    assert taken == {job: list(range(1, last + 1)) for job in ("0", "1")}
    assert len({s["pid"] for s in sweep.steps() if s["job"] == "1"}) == 2
    if launcher == "submitit_slurm":
        queue = tmp_path / "queue"
        assert (queue / "4711_0.restarts").read_text() == "0"
        assert (queue / "4711_1.restarts").read_text() == "1"
        script = (queue / "script").read_text()
        for line in ("--array=0-1%2", "--time=240", "--cpus-per-task=4", "--signal=USR2@120"):
            assert f"#SBATCH {line}" in script

    alone = Sweep(tmp_path / "alone")
    assert alone.run("seed=1,2", *LONG)[0] == 0
    for name, result in alone.results().items():
        assert {k: result[k] for k in SAME} == {k: sweep.results()[name][k] for k in SAME}


def test_the_command_may_end_while_the_scheduler_goes_on(
    tmp_path: Path, cluster: dict[str, str]
) -> None:
    sweep = Sweep(tmp_path)
    arguments = ("seed=1,2", "hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=null")
    process = sweep.start(*arguments, *LONG, new_session=False, **cluster)
    try:
        wait_until(lambda: len({s["job"] for s in sweep.steps()}) == 2)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "0 of 2 jobs finished, 2 running" in out
        wait_until(lambda: len(sweep.results()) == 2)
        before = len(sweep.steps())
    finally:
        sweep.kill()
    status, out, _ = sweep.run(*arguments, *LONG, **cluster)
    assert status == 0
    assert "2 of 2 jobs finished" in out
    assert len(sweep.steps()) == before


def test_the_shipped_launcher_has_no_key_that_the_plugin_does_not_know() -> None:
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

    text = (REPOSITORY / "configs" / "hydra" / "launcher" / "submitit_slurm.yaml").read_text()
    keys = set(yaml.safe_load(text)) - {"defaults"}
    assert keys <= set(SlurmQueueConf.__dataclass_fields__)
