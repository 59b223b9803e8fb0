"""Several processes train as one, however they are started, and end together, however one ends."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image

from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batches, Normalisation
from convtrain.data.images import Images
from convtrain.errors import ConfigError
from convtrain.gradients import load
from convtrain.process.ranks import RankInfo, as_launched, rank_info
from convtrain.training.callbacks.rank_consistency import difference
from tests.conftest import REPOSITORY, compose
from tests.data.test_sources import make_mnist

SMALL = (
    "network=lstm", "callbacks.progress_bar=false", "logger=csv", "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu", "augment=shift", "data.eval_batch_size=37",
    "recorder.flush_every_n_steps=3",
)  # fmt: skip
UNEVEN = ("data.limit=161", "data.batch_size=32", "trainer.max_epochs=2")  # 161 = 5 * 32 + 1
LONG = ("trainer.max_epochs=2000", "recorder=off")
OURS = ("trainer=ddp", "trainer.devices=2")
LIMIT = 30  # seconds in which all processes are gone
BROKEN = """
import pytorch_lightning as pl
class Broken(pl.Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 6 and trainer.global_rank == 1:
            raise RuntimeError("no more for today")
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


class Command:
    """A command whose processes are known by a variable of their environment."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, *command], cwd=REPOSITORY, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment, "TEST_MARK": self.mark},
            start_new_session=True,
        )  # fmt: skip

    def processes(self) -> Iterator[tuple[int, dict[str, str]]]:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                text = (folder / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if self.mark in text:
                yield int(folder.name), dict(v.split("=", 1) for v in text.split("\0") if "=" in v)

    def describe(self) -> list[str]:
        """Return number and command of each process that is left."""
        found = []
        for pid, _ in self.processes():
            with suppress(OSError):
                text = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                found.append(f"{pid} {text[:120]}")
        return found

    def rank(self, number: int) -> int:
        found = [pid for pid, env in self.processes() if env.get("RANK") == str(number)]
        names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in found}
        return next(pid for pid in found if "resource_tracker" not in names[pid])

    def end(self, within: float = 300) -> tuple[int, str, str]:
        try:
            out, err = self.process.communicate(timeout=within)
        finally:
            self.kill()
        return self.process.returncode, out, err

    def kill(self) -> None:
        for pid, _ in list(self.processes()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None and not list(self.processes()):
                return True
            time.sleep(0.1)
        return False


def ours(*settings: str, run: Path, **environment: str) -> Command:
    return Command("train.py", *OURS, *SMALL, *settings, f"hydra.run.dir={run}", **environment)


def torchrun(*settings: str, run: Path, **environment: str) -> Command:
    return Command(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py",
        "trainer=cpu", *SMALL, *settings, f"hydra.run.dir={run}", **environment,
    )  # fmt: skip


STARTS = {"convtrain": ours, "torchrun": torchrun}
started = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)


def wait_for(path: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def curve(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    """To float32 rounding: the whole curve, the result, the gradient record."""
    first, second = curve(one), curve(other)
    assert len(first) == len(second) > 10
    for mine, theirs in zip(second, first, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    for key in ("steps", "epochs", "val/acc", "test/acc"):
        assert results[0][key] == results[1][key], key
    for table, columns in {"steps": ("norm", "loss", "lr"), "parameters": ("norm",)}.items():
        records = [load(run, table).to_pylist() for run in (one, other)]
        assert len(records[0]) == len(records[1]) > 0
        for mine, theirs in zip(records[1], records[0], strict=True):
            assert (mine["step"], mine.get("parameter")) == (
                theirs["step"],
                theirs.get("parameter"),
            )
            for column in columns:
                assert mine[column] == pytest.approx(theirs[column], rel=1e-3, abs=1e-6), column


# --- how a batch is divided -----------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [33, 34, 35, 64])
@pytest.mark.parametrize("shuffle", [True, False], ids=["training", "evaluation"])
def test_every_image_counts_once_an_epoch(world_size: int, count: int, shuffle: bool) -> None:
    pixels = torch.arange(count).view(-1, 1, 1, 1).to(torch.uint8).expand(-1, 1, 4, 4)
    images = Images(pixels.contiguous(), torch.zeros(count, dtype=torch.int64))
    ranks = [
        list(
            Batches(
                images, batch_size=16, normalise=Normalisation([0.5], [0.5]), shuffle=shuffle,
                augmentation=Augmentation(random_crop=int(shuffle)),
                rank=rank, world_size=world_size,
            )
        )
        for rank in range(world_size)
    ]  # fmt: skip
    assert len({len(batches) for batches in ranks}) == 1
    counted = [i for batches in ranks for b in batches if b.loss_weight for i in b.indices.tolist()]
    assert sorted(counted) == list(range(count))
    for parts in zip(*ranks, strict=True):
        assert sum(part.loss_weight for part in parts) == pytest.approx(world_size)
        assert not shuffle or all(len(part.targets) for part in parts)


# --- the place of a process -----------------------------------------------------------------------

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}  # fmt: skip
SLURM = {
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2",
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
}  # fmt: skip


@pytest.mark.parametrize("environment", [TORCHRUN, SLURM], ids=["torchrun", "srun"])
def test_a_process_takes_its_place_from_who_started_it(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    here = rank_info()
    assert (here.rank, here.local_rank, here.world_size, here.num_nodes) == (3, 1, 4, 2)
    trainer = as_launched(compose("trainer=cpu")).trainer
    assert (trainer.devices, trainer.num_nodes, trainer.strategy) == (2, 2, "ddp")
    with pytest.raises(ConfigError, match=r"trainer\.devices=3: .* has started 4 processes"):
        as_launched(compose("trainer=cpu", "trainer.devices=3"))
    with pytest.raises(ConfigError, match=r"data\.batch_size=3: is too small"):
        as_launched(compose("trainer=cpu", "data.batch_size=3"))


@pytest.mark.parametrize(
    "environment", [{}, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}], ids=["a shell", "sbatch"]
)
def test_one_process_is_not_one_of_several(environment: dict[str, str]) -> None:
    assert rank_info(environment) == RankInfo()


def test_several_machines_want_somebody_who_starts_them() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.num_nodes=2: .* torchrun or srun"):
        as_launched(compose("trainer=ddp_cpu", "trainer.num_nodes=2"))


# --- agreement ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["configuration", "code", "data"])
def test_the_first_rank_that_differs_is_named_with_what_differs(name: str) -> None:
    facts = {"configuration": "a", "code": "b", "data": "c"}
    settings = {"optimizer.lr": "0.1", "seed": "1"}
    theirs = {**settings, "optimizer.lr": "0.2"} if name == "configuration" else settings
    assert difference([facts, facts], [settings, settings]) is None
    line = difference([facts, facts, {**facts, name: "other"}], [settings, settings, theirs])
    assert line is not None
    assert line.startswith(f"rank 2 has another {name} than rank 0: ")
    assert len(line.splitlines()) == 1
    assert name != "configuration" or "optimizer.lr is 0.2, not 0.1" in line


# --- whole trainings ------------------------------------------------------------------------------


def test_two_processes_share_a_directory_and_each_has_a_log(tmp_path: Path) -> None:
    status, out, err = ours("trainer.max_epochs=1", "data.limit=64", run=tmp_path / "run").end()
    assert status == 0, err
    assert out.count("test accuracy") == 1
    assert (
        "Initializing distributed: GLOBAL_RANK: 1" in (tmp_path / "run/train.rank1.log").read_text()
    )
    assert "GLOBAL_RANK: 0" in (tmp_path / "run/train.log").read_text()
    assert not (tmp_path / "run/train.rank0.log").exists()


@pytest.mark.slow
def test_fsdp_without_a_gpu_is_refused_in_one_line(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    for setting in ("trainer=fsdp", "trainer.strategy=fsdp"):
        command = Command("train.py", setting, f"hydra.run.dir={tmp_path}")
        status, out, err = command.end()
        assert (status, out) == (2, "")
        assert "trainer=ddp_cpu" in err.splitlines()[0]
        assert "Traceback" not in err


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    command = Command("train.py", "trainer=cpu", *SMALL, *UNEVEN, f"hydra.run.dir={run}")
    status, _, err = command.end()
    assert status == 0, err
    return run


@pytest.mark.slow
@started
def test_two_processes_train_what_one_trains(alone: Path, tmp_path: Path, start: type) -> None:
    status, _, err = start(*UNEVEN, run=tmp_path / "run").end()
    assert status == 0, err
    assert_same_run(alone, tmp_path / "run")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of colour images that decode to more than worker processes are started for."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(20):
            colour = (40 + 160 * label, index, 100)
            picture = Image.new("RGB", (210, 210), colour)
            picture.save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"


@linux
@pytest.mark.slow
@started
@pytest.mark.parametrize("source", ["digits", "synthetic", "image_folder", "mnist"])
def test_several_processes_train_on_every_source(
    tmp_path: Path, pictures: Path, start: type, source: str
) -> None:
    make_mnist(tmp_path / "mnist")
    settings = {
        "digits": ("data.limit=64",),
        "synthetic": ("data.train_size=64", "data.test_size=32", "data.batch_size=16"),
        "image_folder": (
            f"data.root={pictures}", "data.shape=[3,200,200]", "network=lenet",
            f"data.cache_dir={tmp_path / 'cache'}", "data.batch_size=4",
        ),
        "mnist": (f"data.root={tmp_path / 'mnist'}", "data.batch_size=8"),
    }  # fmt: skip
    run = tmp_path / "run"
    status, _, err = start(
        f"data={source}", "trainer.max_epochs=1", *settings[source], run=run
    ).end()
    assert status == 0, err
    assert json.loads((run / "result.json").read_text())["steps"] > 0


def two_machines(*settings: str, own: str = "seed=1") -> tuple[Command, Command]:
    """Start torchrun twice, as on two machines; only the second has ``own``."""
    port = str(free_port())
    first, second = (
        Command(
            "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
            "--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", port,
            str(REPOSITORY / "train.py"), "trainer=cpu", *SMALL, *settings, *([own] * node),
        )
        for node in range(2)
    )  # fmt: skip
    return first, second


@pytest.mark.slow
def test_two_machines_agree_on_one_directory(alone: Path, tmp_path: Path) -> None:
    name = f"model_{uuid.uuid4().hex}"
    settings = (*UNEVEN, f"network.name={name}")
    first, second = two_machines(*settings)
    assert second.end()[0] == 0
    status, _, err = first.end()
    assert status == 0, err
    (run,) = (REPOSITORY / "logs" / "runs" / name).iterdir()
    try:
        assert_same_run(alone, run)
        assert (run / "train.rank1.log").exists()
    finally:
        subprocess.run(["rm", "-r", str(run.parent)], check=True)


@pytest.mark.slow
def test_machines_with_different_settings_stop_before_the_first_step(tmp_path: Path) -> None:
    shared = (*UNEVEN, f"hydra.run.dir={tmp_path / 'run'}")
    first, second = two_machines(*shared, own="optimizer.lr=0.2")
    for command in (first, second):
        status, _, err = command.end(within=120)
        assert status != 0
        assert "rank 1 has another configuration than rank 0: optimizer.lr is 0.2" in err
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.slow
def test_slurm_s_tasks_train_together(alone: Path, tmp_path: Path) -> None:
    port, run = str(free_port()), tmp_path / "run"
    tasks = [
        Command(
            "train.py", "trainer=cpu", *SMALL, *UNEVEN, f"hydra.run.dir={run}",
            SLURM_JOB_ID="4711", SLURM_STEP_ID="0", SLURM_NTASKS="2", SLURM_NNODES="2",
            SLURM_PROCID=str(rank), SLURM_LOCALID="0", SLURM_NODEID=str(rank),
            SLURM_JOB_NAME="job", SLURM_NODELIST="127.0.0.1", SLURM_NTASKS_PER_NODE="1",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(2)
    ]  # fmt: skip
    for task in tasks:
        status, _, err = task.end()
        assert status == 0, err
    assert_same_run(alone, run)


# --- when one of them ends ------------------------------------------------------------------------


@linux
@pytest.mark.slow
@started
def test_a_rank_that_raises_ends_all_and_its_traceback_is_shown(
    tmp_path: Path, start: type
) -> None:
    (tmp_path / "brokencallback.py").write_text(BROKEN)
    custom = ("trust=[brokencallback]", "callbacks.custom=[{_target_: brokencallback.Broken}]")
    command = start(*LONG, *custom, run=tmp_path / "run", PYTHONPATH=str(tmp_path))
    wait_for(tmp_path / "run" / "metrics.csv")
    assert command.gone_within(LIMIT)
    status, _, err = command.end()
    assert status == 1
    assert "rank 1: step 6, epoch 0, batch 5: RuntimeError: no more for today" in err
    assert 'raise RuntimeError("no more for today")' in err


@linux
@pytest.mark.slow
@started
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all(tmp_path: Path, start: type, rank: int) -> None:
    command = start(*LONG, run=tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
    os.kill(command.rank(rank), signal.SIGKILL)
    assert command.gone_within(LIMIT)
    status, _, err = command.end()
    assert status == 1
    if start is ours:
        assert err.splitlines()[-1].startswith(f"rank {rank}: was ended by SIGKILL")
    else:
        assert "SIGKILL" in err


@linux
@pytest.mark.slow
def test_the_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    command = ours(*LONG, run=tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
    command.process.kill()
    assert command.gone_within(LIMIT)
    command.end()


@linux
@pytest.mark.slow
@pytest.mark.parametrize("whom", ["launcher", 0, 1])
def test_sigterm_to_any_process_saves_and_ends_all_with_143(
    tmp_path: Path, whom: int | str
) -> None:
    command = ours(*LONG, run=tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    pid = command.rank(whom) if isinstance(whom, int) else command.process.pid
    os.kill(pid, signal.SIGTERM)
    assert command.gone_within(LIMIT)
    status, _, err = command.end()
    assert status == 143, err
    assert err.splitlines()[-1].endswith(f"to resume: python train.py resume={tmp_path / 'run'}")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_mtime_ns > before


@linux
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_under_torchrun_saves_and_each_rank_ends_with_143(
    tmp_path: Path, rank: int
) -> None:
    """torchrun's own status is then 1, for it counts 143 as a failure; its summary has the 143."""
    command = torchrun(*LONG, run=tmp_path / "run")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
    os.kill(command.rank(rank), signal.SIGTERM)
    assert command.gone_within(LIMIT)
    status, _, err = command.end()
    assert status == 1
    (again,) = re.findall("to resume: (.*)", err)
    assert again.endswith(f" --nproc-per-node 2 train.py resume={tmp_path / 'run'}")
    assert "exitcode  : 143" in err
