"""How processes that were started from outside find one another, and agree on a time stamp."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from convtrain.errors import ConfigError, TrainingError, first_line
from convtrain.process.ranks import RankInfo, rank_info, unset_command
from convtrain.process.stamp import new_stamp

if TYPE_CHECKING:
    from torch.distributed import Store

JOIN_SECONDS = 300.0  # that the processes may take to find one another
AGENT_SECONDS = 10.0  # that torchrun's agent, which listens before it starts anybody, may take
PATIENCE = 10.0  # seconds of waiting before it is reported


_kept: list[Any] = []  # the store, which rank 0 serves to the others as long as it lives


def join(here: RankInfo) -> str:
    """Wait for all ranks, and return the stamp of a new run directory, the same for all of them.

    All waiting is done in Python, so that a signal ends it at once.

    Raises:
        ConfigError: torchrun's variables are there, and torchrun is not.
        TrainingError: not all ranks have come in time.
    """
    from torch.distributed import TCPStore

    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = here.address[0], str(here.address[1])
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    deadline = time.monotonic() + (min(AGENT_SECONDS, JOIN_SECONDS) if served else JOIN_SECONDS)
    serves = here.rank == 0 and not served
    if not serves:
        _wait_for_server(here, deadline, served)
    try:
        store: Store = TCPStore(
            *here.address, None, is_master=serves, timeout=timedelta(seconds=60),
            wait_for_workers=False, multi_tenant=True,
        )  # fmt: skip
        _kept.append(store)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        _wait_for_ranks(store, f"convtrain/{attempt}/ranks", here)
        return _stamp(store, f"convtrain/{attempt}/stamp", here)
    except (RuntimeError, OSError) as error:  # torch's DistStoreError is the former
        raise TrainingError(f"{_who(here)}: {first_line(error)}") from error


def _who(here: RankInfo) -> str:
    host, port = here.address
    return f"rank {here.rank} of {here.world_size}, at {host}:{port}"


def _wait_for_server(here: RankInfo, deadline: float, served: bool) -> None:
    """Wait until somebody listens where the ranks meet."""
    while True:
        try:
            socket.create_connection(here.address, timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline and served:
                raise ConfigError(
                    f"TORCHELASTIC_RUN_ID={os.environ.get('TORCHELASTIC_RUN_ID')}: no torchrun "
                    f"answers at {here.address[0]}:{here.address[1]}; where its variables are left "
                    f"over, type {unset_command(('TORCHELASTIC_RUN_ID',))}"
                ) from error
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"{_who(here)}: rank 0 has not come within {JOIN_SECONDS:.0f} s; see its own "
                    f"output, or unset variables that are left over of {here.launcher}"
                ) from error
        time.sleep(0.1)


def _wait_for_ranks(store: "Store", key: str, here: RankInfo) -> None:
    began, reported = time.monotonic(), False
    came = store.add(key, 1)
    while came < here.world_size:
        waited = time.monotonic() - began
        if waited > JOIN_SECONDS:
            raise TrainingError(
                f"{_who(here)}: {here.world_size - came} have not come within {JOIN_SECONDS:.0f} "
                f"s; see their own output, or unset variables that are left over of {here.launcher}"
            )
        if waited > PATIENCE and not reported:
            print(f"{_who(here)}: waits for {here.world_size - came} more", file=sys.stderr)
            reported = True
        time.sleep(0.1)
        came = store.add(key, 0)


def _stamp(store: "Store", key: str, here: RankInfo) -> str:
    if here.launcher == "srun":
        job, step = os.environ["SLURM_JOB_ID"], os.environ["SLURM_STEP_ID"]
        return f"slurm-{job}.{step}-{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    if here.rank == 0:
        store.set(key, new_stamp())
    return str(store.get(key).decode())


def in_time(connect: Callable[[], None]) -> Callable[[], None]:
    """Return what connects this rank with the others, and ends this process where that hangs.

    The ranks may take as long as they need until all of them are ready, such as to decode images;
    from then on they have ``JOIN_SECONDS``. A library that waits for a dead rank cannot be stopped
    in another way. Ranks of convtrain's own launcher need no limit, because it watches them.
    """

    def limited() -> None:
        from torch import distributed

        if not _kept or distributed.is_initialized():
            return connect()
        store, here = _kept[0], rank_info()
        key = f"convtrain/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/ready"
        ready = store.add(key, 1)
        while ready < here.world_size:
            time.sleep(0.1)
            ready = store.add(key, 0)
        limit = threading.Timer(JOIN_SECONDS, _give_up, [here])
        limit.daemon = True
        limit.start()
        try:
            return connect()
        finally:
            limit.cancel()

    return limited


def _give_up(here: RankInfo) -> None:
    print(
        f"{_who(here)}: the ranks have not connected within {JOIN_SECONDS:.0f} s; start the "
        f"command again with resume=auto, and torchrun without --max-restarts",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    os._exit(1)
