"""Which rank a process is: from every subset of the variables that launchers set, or left over."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import chain, combinations
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from convtrain.errors import ConfigError
from convtrain.launch.command import join_ranks, run_command
from convtrain.process import joining
from convtrain.process.joining import in_time
from convtrain.process.ranks import RankInfo, rank_info, settle_rank
from tests.conftest import Train
from tests.launch.test_processes import SMALL, Command, linux
from tests.process.test_signals import in_child

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29511", "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1", "SLURM_NNODES": "1", "SLURM_STEP_NUM_TASKS": "2",
}  # fmt: skip
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "2", "PMI_RANK": "1",
    "MV2_COMM_WORLD_SIZE": "2", "JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_RANK": "1",
}  # fmt: skip
NEEDED = {
    "torchrun": set(TORCHRUN) - {"TORCHELASTIC_USE_AGENT_STORE"},
    "srun": set(SRUN) - {"SLURM_NNODES", "SLURM_STEP_NUM_TASKS"},
}
SIZES = {"OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE", "PMI_SIZE"}
ENV = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
LEFT = set(TORCHRUN) | {"NODE_RANK", "ROLE_RANK", "GROUP_RANK"}


def subsets(variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    names = list(variables)
    for chosen in chain.from_iterable(combinations(names, n) for n in range(len(names) + 1)):
        yield {name: variables[name] for name in chosen}


def expected(names: set[str]) -> str | None:
    """Return who starts a process with these variables, ``refused``, or None for nobody."""
    if names >= NEEDED["torchrun"]:
        return "torchrun"
    if names & (SIZES - {"PMI_SIZE"}):
        return "refused"
    if names >= NEEDED["srun"]:
        return "srun"
    return "refused" if "PMI_SIZE" in names or names >= ENV else None


@pytest.mark.parametrize(
    "variables",
    [TORCHRUN, SRUN, MPI, {**SRUN, **MPI}, {**TORCHRUN, "SLURM_PROCID": "1", "PMI_RANK": "0"}],
    ids=["torchrun", "srun", "mpi", "srun and mpi", "torchrun in a job"],
)
def test_a_launcher_counts_only_where_all_that_it_sets_is_there(variables: dict[str, str]) -> None:
    counts: dict[str | None, int] = {}
    for subset in subsets(variables):
        if (found := expected(set(subset))) == "refused":
            with pytest.raises(ConfigError, match=r"^[^\n]*env -u [^\n]*$"):
                rank_info(subset)
        else:
            here = rank_info(subset)
            assert here.launcher == found, subset
            assert here == RankInfo() if found is None else here.rank == 1, subset
        counts[found] = counts.get(found, 0) + 1
    assert counts[None] > 1


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [
        ({**SRUN, "SLURM_STEP_ID": "4294967290"}, None),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({**SRUN, "SLURM_JOB_NAME": "interactive"}, "srun"),  # salloc, and srun at its prompt
        ({k: v for k, v in SRUN.items() if k != "SLURM_PROCID"}, None),
        ({**SRUN, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({k: v for k, v in SRUN.items() if k != "SLURM_STEP_ID"}, None),
        ({**SRUN, "TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0"}, "srun"),
        ({**TORCHRUN, **SRUN}, "torchrun"),
        ({**TORCHRUN, "RANK": ""}, None),
        ({**TORCHRUN, "MASTER_PORT": "port"}, None),
    ],
    ids=[
        "the interactive step", "a step of one task", "a step within an allocation",
        "a step without ranks", "one task", "a batch script", "srun with leftovers of torchrun",
        "torchrun within srun", "an empty rank", "a port that is no number",
    ],
)  # fmt: skip
def test_steps_of_slurm_and_broken_sets(variables: dict[str, str], launcher: str | None) -> None:
    assert rank_info(variables).launcher == launcher


@pytest.mark.parametrize(
    ("listed", "host"),
    [
        ("node01", "node01"), ("node[01-03,07],other", "node01"), ("gpu-a[7,9]-ib", "gpu-a7-ib"),
        ("10.0.0.1,10.0.0.2", "10.0.0.1"),
    ],
)  # fmt: skip
def test_the_first_node_is_where_tasks_of_srun_meet(listed: str, host: str) -> None:
    assert rank_info({**SRUN, "SLURM_NODELIST": listed}).address == (host, 19711)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A shell in which Lightning was imported with whatever was left over in it."""
    for name in LEFT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    return monkeypatch


@pytest.mark.parametrize(
    "left_over",
    [
        {"LOCAL_RANK": "1"}, {"RANK": "1"}, {"SLURM_PROCID": "1"}, {"JSM_NAMESPACE_RANK": "1"},
        {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"},
    ],
    ids=lambda variables: " ".join(variables),
)  # fmt: skip
def test_with_leftover_variables_it_trains_alone_and_writes_everything(
    shell: pytest.MonkeyPatch, tmp_path: Path, train: Train, left_over: dict[str, str]
) -> None:
    for name, value in left_over.items():
        shell.setenv(name, value)
    tiny = ("trainer.limit_train_batches=2", "data.limit=64", "trainer.log_every_n_steps=1")
    train(*tiny)
    for name in ("config.yaml", "metrics.csv", "result.json"):
        assert (tmp_path / "run" / name).is_file(), name
    assert not LEFT & set(os.environ)


def test_whole_leftover_sets_end_in_one_line(
    shell: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.setattr(joining, "AGENT_SECONDS", 0.1)
    shell.setattr(joining, "JOIN_SECONDS", 0.2)
    waits = {k: v for k, v in TORCHRUN.items() if k != "TORCHELASTIC_USE_AGENT_STORE"}
    for variables, status, line in (
        (TORCHRUN, 2, "no torchrun answers at 127.0.0.1:29511; where its variables are left over"),
        (waits, 1, "rank 1 of 2, at 127.0.0.1:29511: rank 0 has not come within 0 s"),
        ({**waits, "RANK": "0"}, 1, "rank 0 of 2, at 127.0.0.1:29511: 1 have not come within 0 s"),
        ({**SRUN, "SLURM_PROCID": "0"}, 1, "rank 0 of 2, at 127.0.0.1:19711: 1 have not come"),
    ):
        with shell.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as raised:
                run_command(["seed=1"])
        assert raised.value.code == status
        out, err = capsys.readouterr()
        assert line in err
        assert len(err.splitlines()) == 1
        assert not out


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_wait_for_other_ranks_at_once(
    shell: pytest.MonkeyPatch, rank: str, signum: int
) -> None:
    for name, value in {**SRUN, "SLURM_PROCID": rank, "MASTER_PORT": "29513"}.items():
        shell.setenv(name, value)

    def wait() -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signum)).start()
        try:
            join_ranks(False, OmegaConf.create())
        except KeyboardInterrupt:
            os._exit(130)

    began = time.monotonic()
    assert in_child(wait) == (130 if signum == signal.SIGINT else -signum)
    assert time.monotonic() - began < 10


class Store(dict[str, int]):
    """As much of torch's store as ranks need that are ready."""

    def add(self, key: str, count: int) -> int:
        self[key] = self.get(key, 0) + count
        return self[key]


def test_ranks_that_are_ready_and_do_not_connect_end_with_one_line(
    shell: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in TORCHRUN.items():
        shell.setenv(name, value)
    shell.setattr(joining, "JOIN_SECONDS", 0.2)
    key = "convtrain/0/ready"

    def connect(others: int, seconds: float) -> int:
        shell.setattr(joining, "_kept", [Store({key: others})])
        return in_child(lambda: (in_time(lambda: time.sleep(seconds))(), os._exit(0)))

    assert connect(others=1, seconds=0.01) == 0
    assert connect(others=1, seconds=5) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("rank 1 of 2, at 127.0.0.1:29511: the ranks have not connected within")
    assert "resume=auto" in line


def test_a_launcher_that_is_real_keeps_its_variables(shell: pytest.MonkeyPatch) -> None:
    for name, value in {**SRUN, "MASTER_ADDR": "host", "MASTER_PORT": "1", "RANK": "0"}.items():
        shell.setenv(name, value)
    assert settle_rank().address == ("host", 1)
    assert set(SRUN) <= set(os.environ)
    assert "RANK" not in os.environ
    for name, value in TORCHRUN.items():
        shell.setenv(name, value)
    assert settle_rank().launcher == "torchrun"
    assert set(TORCHRUN) <= set(os.environ)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_processes_that_convtrain_starts_do_not_see_leftover_variables(
    tmp_path: Path, devices: int
) -> None:
    settings = (*SMALL, "trainer.max_epochs=1", "data.limit=64", f"hydra.run.dir={tmp_path}")
    left_over = {"TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "3", "MASTER_PORT": "1"}
    command = Command(
        "train.py", "trainer=ddp_cpu", f"trainer.devices={devices}", *settings, **left_over
    )
    status, _, err = command.end(within=120)
    assert status == 0, err
    assert (tmp_path / "result.json").is_file()
