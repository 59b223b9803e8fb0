"""The rank of this process, from the variables that torchrun, srun or convtrain's launcher sets.

A shell, notebook or batch script may have inherited such variables, and then the process trains
alone. This module removes inherited ones before torch and Lightning read them.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convtrain.errors import ConfigError
from convtrain.program import as_typed

if TYPE_CHECKING:
    from convtrain.config.schema import Config

LAUNCHER_ENV = "CONVTRAIN_STARTER"
TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
SRUN = ("SLURM_STEP_ID", "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE", "PMI_SIZE")
LEFT_OVER = re.compile(
    r"(LOCAL_|NODE_|GROUP_|ROLE_)?RANK|((LOCAL|GROUP|ROLE)_)?WORLD_SIZE|ROLE_NAME"
    r"|TORCHELASTIC_.*|CONVTRAIN_STARTER"
)
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
FIRST_SPECIAL_STEP = 0xFFFFFFF0  # SLURM's ids of batch and interactive steps start here


@dataclass(frozen=True)
class RankInfo:
    """One of the processes that train together; by default, a process that trains alone.

    Attributes:
        launcher: the name of what started the processes; None for a process that trains alone.
        address: host and port where the ranks meet.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    num_nodes: int = 1
    launcher: str | None = None
    address: tuple[str, int] = ("127.0.0.1", 0)


def rank_info(environ: Mapping[str, str] = os.environ) -> RankInfo:
    """Return this process's rank; a launcher counts only if all its variables are set.

    Raises:
        ConfigError: something started several processes in a way that convtrain does not support.
    """
    torchrun = _numbers(environ, TORCHRUN)
    if torchrun and "TORCHELASTIC_RUN_ID" in environ and (address := _address(environ)):
        rank, local_rank, world_size, local_world_size, nodes = torchrun
        if not (rank < world_size == local_world_size * nodes and local_rank < local_world_size):
            raise ConfigError(
                f"RANK={rank}, WORLD_SIZE={world_size}, LOCAL_WORLD_SIZE={local_world_size}: "
                f"do not agree with one another; start as many processes on each machine, or "
                f"unset what is left over: {unset_command(('TORCHELASTIC_RUN_ID',))}"
            )
        launcher = environ.get(LAUNCHER_ENV, "torchrun")
        return RankInfo(rank, local_rank, world_size, local_world_size, nodes, launcher, address)
    _refuse_several(environ, MPI_SIZES[:-1], "mpirun or jsrun has")
    if (info := _of_srun(environ)) is not None:
        return info
    _refuse_several(environ, MPI_SIZES[-1:], "mpirun has")
    if _numbers(environ, ("RANK",)) and _address(environ):
        _refuse_several(
            environ, ("WORLD_SIZE",), "neither torchrun nor srun, but something else, has"
        )
    return RankInfo()


def _of_srun(environ: Mapping[str, str]) -> RankInfo | None:
    srun = _numbers(environ, SRUN)
    if not srun:
        return None
    step, job, tasks, rank, local_rank = srun
    (of_step,) = _numbers(environ, ("SLURM_STEP_NUM_TASKS",)) or (None,)
    named_shell = environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if of_step is None and named_shell:  # Lightning's rule; a step of srun has both variables
        return None
    if step >= FIRST_SPECIAL_STEP or min(tasks, of_step or tasks) < 2:
        return None
    if "SLURM_PTY_PORT" in environ and os.isatty(0):
        return None  # the command was typed in the shell of `srun --pty bash`
    nodes = _numbers(environ, ("SLURM_STEP_NUM_NODES",)) or _numbers(environ, ("SLURM_NNODES",))
    (count,) = nodes or (1,)
    if not (rank < tasks and count and tasks % count == 0 and local_rank < tasks // count):
        raise ConfigError(
            f"SLURM_PROCID={rank}, SLURM_NTASKS={tasks}, SLURM_NNODES={count}: do not agree with "
            f"one another; start as many tasks on each node by --ntasks-per-node, or unset what is "
            f"left over: {unset_command(('SLURM_STEP_ID',))}"
        )
    listed = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST", "127.0.0.1")
    found = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\])?([^,\[]*)", listed)
    first = "".join(part or "" for part in found.groups()) if found else listed
    host = environ.get("MASTER_ADDR") or first
    (port,) = _numbers(environ, ("MASTER_PORT",)) or (15_000 + job % 10_000,)
    return RankInfo(rank, local_rank, tasks, tasks // count, count, "srun", (host, port))


def _numbers(environ: Mapping[str, str], names: Sequence[str]) -> list[int] | None:
    """Return variables as numbers; None if one is missing or is not a number."""
    values = [environ.get(name, "") for name in names]
    return [int(v) for v in values] if all(v.isascii() and v.isdigit() for v in values) else None


def _address(environ: Mapping[str, str]) -> tuple[str, int] | None:
    port = _numbers(environ, ADDRESS[1:])
    return (environ["MASTER_ADDR"], port[0]) if port and environ.get("MASTER_ADDR") else None


def _refuse_several(environ: Mapping[str, str], sizes: Sequence[str], who: str) -> None:
    # each process would train alone, and all would write into one directory
    for name in sizes:
        if (size := _numbers(environ, (name,))) and size[0] > 1:
            raise ConfigError(
                f"{name}={size[0]}: {who} started this process; type torchrun or srun, see "
                f"docs/devices.md, or unset what is left over: {unset_command((name,))}"
            )


def unset_command(names: Sequence[str]) -> str:
    return as_typed(f"env {' '.join(f'-u {name}' for name in names)} python train.py")


def settle_rank() -> RankInfo:
    """Return ``rank_info()``, and remove inherited variables from the environment."""
    here = rank_info()
    # torch waits for an agent if TORCHELASTIC_USE_AGENT_STORE is set; Lightning uses any LOCAL_RANK
    if here.launcher in (None, "srun"):
        for name in filter(LEFT_OVER.fullmatch, list(os.environ)):
            del os.environ[name]
    for name in ADDRESS if here.launcher is None else ():
        os.environ.pop(name, None)
    return here


def is_main_process() -> bool:
    """Tell whether this is rank 0, which writes the run directory."""
    return rank_info().rank == 0


def as_launched(config: "Config") -> "Config":
    """Return the configuration with the launcher's devices and nodes, or raise ConfigError."""
    here, trainer = rank_info(), config.trainer
    if here.launcher is None:
        if trainer.num_nodes > 1:
            raise ConfigError(
                f"trainer.num_nodes={trainer.num_nodes}: a process on each machine must be started "
                f"by torchrun or srun, see docs/devices.md"
            )
        return config
    found = {"devices": here.local_world_size, "num_nodes": here.num_nodes}
    for key, count in found.items():
        if (wanted := getattr(trainer, key)) not in (1, "auto", count):
            raise ConfigError(
                f"trainer.{key}={wanted}: {here.launcher} has started {here.world_size} processes "
                f"on {here.num_nodes} machines; leave trainer.{key} out"
            )
    if here.world_size > config.data.batch_size:
        raise ConfigError(
            f"data.batch_size={config.data.batch_size}: is too small for every one of "
            f"{here.world_size} devices to get an image; set {here.world_size} or more"
        )
    several = trainer.strategy == "auto" and here.world_size > 1
    changes = {**found, "strategy": "ddp" if several else trainer.strategy}
    return config.model_copy(update={"trainer": trainer.model_copy(update=changes)})
