"""Ranks that torchrun or srun started: how they find one another and agree on a time stamp."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from convtrain.errors import ConfigError, TrainingError, first_line
from convtrain.process.ranks import RankInfo, rank_info, unset_command
from convtrain.process.stamp import new_stamp

if TYPE_CHECKING:
    from torch.distributed import Store

JOIN_SECONDS = 300.0  # for the ranks to find one another
AGENT_SECONDS = 10.0  # for torchrun's agent, which listens before it starts a rank
PATIENCE_SECONDS = 10.0  # before a rank reports that it waits

_kept: "list[Store]" = []  # rank 0 serves the store to the others as long as it lives


def join(here: RankInfo) -> str:
    """Wait for all ranks, in Python so that a signal ends it; return a stamp that they share.

    Raises:
        ConfigError: torchrun's variables are set, but no torchrun answers.
        TrainingError: a rank is missing after ``JOIN_SECONDS``.
    """
    from torch.distributed import TCPStore

    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = here.address[0], str(here.address[1])
    agent_serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = here.rank == 0 and not agent_serves
    if not serves:
        _wait_for_server(here, agent_serves)
    try:
        store: Store = TCPStore(
            *here.address, None, is_master=serves, timeout=timedelta(seconds=60),
            wait_for_workers=False, multi_tenant=True,
        )  # fmt: skip
        _kept.append(store)
        _wait_for_ranks(store, here)
        return _stamp(store, here)
    except (RuntimeError, OSError) as error:  # torch's DistStoreError is a RuntimeError
        raise TrainingError(f"{_name(here)}: {first_line(error)}") from error


def _name(here: RankInfo) -> str:
    host, port = here.address
    return f"rank {here.rank} of {here.world_size}, at {host}:{port}"


def _key(name: str) -> str:
    # torchrun keeps the store when it restarts the ranks
    return f"convtrain/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{name}"


def _wait_for_server(here: RankInfo, agent_serves: bool) -> None:
    patience = min(AGENT_SECONDS, JOIN_SECONDS) if agent_serves else JOIN_SECONDS
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(here.address, timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline and agent_serves:
                raise ConfigError(
                    f"TORCHELASTIC_RUN_ID={os.environ.get('TORCHELASTIC_RUN_ID')}: no torchrun "
                    f"answers at {here.address[0]}:{here.address[1]}; where its variables are left "
                    f"over, type {unset_command(('TORCHELASTIC_RUN_ID',))}"
                ) from error
            if time.monotonic() > deadline:
                raise TrainingError(_missing(here, "rank 0 has")) from error
        time.sleep(0.1)


def _wait_for_ranks(store: "Store", here: RankInfo) -> None:
    began, reported = time.monotonic(), False
    came = store.add(_key("ranks"), 1)
    while came < here.world_size:
        missing, waited = here.world_size - came, time.monotonic() - began
        if waited > JOIN_SECONDS:
            raise TrainingError(_missing(here, f"{missing} have"))
        if waited > PATIENCE_SECONDS and not reported:
            print(f"{_name(here)}: waits for {missing} more", file=sys.stderr)
            reported = True
        time.sleep(0.1)
        came = store.add(_key("ranks"), 0)


def _missing(here: RankInfo, who: str) -> str:
    return (
        f"{_name(here)}: {who} not come within {JOIN_SECONDS:.0f} s; read their own output, or "
        f"unset the variables that {here.launcher} has left over"
    )


def _stamp(store: "Store", here: RankInfo) -> str:
    if here.launcher == "srun":
        job, step = os.environ["SLURM_JOB_ID"], os.environ["SLURM_STEP_ID"]
        return f"slurm-{job}.{step}-{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    if here.rank == 0:
        store.set(_key("stamp"), new_stamp())
    return str(store.get(_key("stamp")).decode())


def in_time(connect: Callable[[], None]) -> Callable[[], None]:
    """Wrap ``connect`` so that the process exits if it hangs ``JOIN_SECONDS`` after all are ready.

    Only an exit stops a library that waits for a dead rank. Ranks of convtrain's own launcher have
    no limit, because the launcher watches them.
    """

    def limited() -> None:
        from torch import distributed

        if not _kept or distributed.is_initialized():
            return connect()
        store, here = _kept[0], rank_info()
        ready = store.add(_key("ready"), 1)
        while ready < here.world_size:
            time.sleep(0.1)
            ready = store.add(_key("ready"), 0)
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
        f"{_name(here)}: the ranks have not connected within {JOIN_SECONDS:.0f} s; start the "
        f"command again with resume=auto, and torchrun without --max-restarts",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    os._exit(1)
