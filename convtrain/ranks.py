"""The place of this process among those that train together, as whoever started it has told it.

torchrun, SLURM's ``srun`` and convtrain's own launcher tell it in environment variables.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convtrain.config.command_line import CommandLine
from convtrain.config.names import STAMP, new_stamp
from convtrain.config.schema import Config
from convtrain.errors import ConfigError

STARTER = "CONVTRAIN_STARTER"


@dataclass(frozen=True)
class Place:
    """One of several processes.

    Attributes:
        rank: among all, from 0, which writes.
        local_rank: among those of this machine.
        world_size: how many there are.
        local_world_size: how many there are on each machine.
        num_nodes: machines.
        starter: who started them, as an error names it.
    """

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    num_nodes: int
    starter: str


def place(environ: Mapping[str, str] = os.environ) -> Place | None:
    """Return this process's place, or None where nobody has started several."""
    if "TORCHELASTIC_RUN_ID" in environ and "RANK" in environ:
        return Place(
            rank=int(environ["RANK"]),
            local_rank=int(environ["LOCAL_RANK"]),
            world_size=int(environ["WORLD_SIZE"]),
            local_world_size=int(environ["LOCAL_WORLD_SIZE"]),
            num_nodes=int(environ["GROUP_WORLD_SIZE"]),
            starter=environ.get(STARTER, "torchrun"),
        )
    tasks = int(environ.get("SLURM_NTASKS", 1))
    if "SLURM_STEP_ID" in environ and tasks > 1:
        nodes = int(environ.get("SLURM_STEP_NUM_NODES", environ.get("SLURM_NNODES", "1")))
        rank, local_rank = int(environ["SLURM_PROCID"]), int(environ["SLURM_LOCALID"])
        return Place(rank, local_rank, tasks, tasks // nodes, nodes, starter="srun")
    return None


def is_main_process() -> bool:
    """Tell whether this process writes the run's directory."""
    here = place()
    return here is None or here.rank == 0


def as_launched(config: Config) -> Config:
    """Return the configuration with the devices that were given to the processes.

    Raises:
        ConfigError: it asks for others.
    """
    here, trainer = place(), config.trainer
    if here is None:
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
                f"trainer.{key}={wanted}: {here.starter} has started {here.world_size} processes "
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


def command_of_this_rank(arguments: Sequence[str]) -> list[str]:
    """Return the command line with which this process joins the others in one run directory.

    Where they were started from outside, each composes the configuration by itself, and a new
    directory's name must be the same for all. Ranks other than 0 log to files of their own.
    """
    here = place()
    command = CommandLine.parse(arguments)
    if here is None or not command.trains:
        return list(arguments)
    if command.multirun:
        print(
            f"-m: a sweep starts its own processes; leave {here.starter} out and set "
            f"trainer.devices={here.local_world_size}",
            file=sys.stderr,
        )
        sys.exit(ConfigError.exit_status)
    os.environ[STAMP] = _shared_stamp(here)
    if here.rank == 0:
        return list(arguments)
    return [*arguments, f"hydra.job.name=train.rank{here.rank}", "hydra.output_subdir=null"]


def _shared_stamp(here: Place) -> str:
    """Return what names a new run directory, the same for all processes."""
    if here.starter == "srun":
        job, step = os.environ["SLURM_JOB_ID"], os.environ["SLURM_STEP_ID"]
        return f"slurm-{job}.{step}-{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    from torch.distributed import rendezvous

    store, _, _ = next(rendezvous("env://"))
    if here.rank == 0:
        store.set("convtrain/stamp", new_stamp())
    return str(store.get("convtrain/stamp").decode())
