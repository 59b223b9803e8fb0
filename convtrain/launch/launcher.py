"""The processes of a training, one per device: how they start, and how they are watched.

The process that was typed imports no torch. It starts all ranks at once, passes signals on to them,
and ends them all when one of them fails or dies. Nothing of them remains in it, so the jobs of a
sweep can follow one another.
"""

import logging
import logging.config
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import IO, Any

from convtrain.config.schema import Config
from convtrain.errors import ConfigError, TrainingError
from convtrain.launch.failure import Failure, failure_of
from convtrain.launch.libraries import importing_pipeline
from convtrain.process.hardware import cores
from convtrain.process.lock import held
from convtrain.process.output import keep_output_open
from convtrain.process.ranks import LAUNCHER_ENV, settle_rank
from convtrain.process.signals import STOP_SIGNALS, Interrupted, Signals
from convtrain.process.startup import environment_restored, skip_last_collection
from convtrain.run.directory import Run
from convtrain.run.result import Result

GRACE_SECONDS = 10.0  # for the other ranks to end by themselves after one has failed


@dataclass
class Rank:
    """A process that was started, and the pipe through which it reports its failure."""

    process: SpawnProcess
    reports: Connection
    failure: Failure | None = None

    @property
    def status(self) -> int:
        return self.process.exitcode or 0

    @property
    def signum(self) -> int:
        """The number of the signal that ended it, if one did."""
        return self.status - 128 if self.status > 128 else -self.status

    def listen(self) -> None:
        """Receive the failure, if there is one."""
        try:
            if self.failure is None and self.reports.poll():
                self.failure = self.reports.recv()
        except EOFError:
            pass


class InheritedFile:
    """An open file that a started process gets as well."""

    def __init__(self, file: IO[bytes] | IO[str]) -> None:
        self.descriptor = file.fileno()

    def __getstate__(self) -> object:
        from multiprocessing.reduction import DupFd  # not on Windows

        return DupFd(self.descriptor)

    def __setstate__(self, duplicate: Any) -> None:
        self.descriptor = duplicate.detach()


def train_in_processes(
    count: int, config: Config, run_dir: Path, overrides: Sequence[str], signals: Signals
) -> Result:
    """Train in ``count`` processes of this machine and return the result.

    Raises:
        ConvtrainError: the message of the first rank that failed, or how it died.
        Interrupted: a signal to this process or to a rank has stopped the training.
    """
    signals.busy = True
    ranks = _start(count, config, run_dir, overrides)
    try:
        _watch(ranks, signals)
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.join()
        signals.busy = False
    _raise_failure(ranks, signals, run_dir)
    if (result := Run(run_dir).read_result()) is None:
        raise TrainingError(f"{run_dir}: the processes have ended, but there is no result.json")
    return result


# --- in the process that was typed ----------------------------------------------------------------


def _start(count: int, config: Config, run_dir: Path, overrides: Sequence[str]) -> list[Rank]:
    context = multiprocessing.get_context("spawn")
    shared = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(cores() // count, 1))),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1",
        "TORCHELASTIC_RUN_ID": "convtrain", LAUNCHER_ENV: "convtrain",
    }  # fmt: skip
    lock = held(run_dir)
    files = InheritedFile(sys.stdout), None if lock is None else InheritedFile(lock)
    ranks = []
    with environment_restored():
        settle_rank()
        for rank in range(count):
            os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
            reports, report = context.Pipe(duplex=False)
            process = context.Process(
                target=run_rank, name=f"rank {rank}",
                args=(config, run_dir, list(overrides), _logging_of(rank), report, *files),
            )  # fmt: skip
            process.start()
            report.close()
            ranks.append(Rank(process, reports))
    return ranks


def _watch(ranks: list[Rank], signals: Signals) -> None:
    """Return when all ranks have ended, or ``GRACE_SECONDS`` after one has failed."""
    passed_on, deadline = False, float("inf")
    while running := [rank for rank in ranks if rank.process.exitcode is None]:
        wait([rank.process.sentinel for rank in running], timeout=0.1)
        for rank in ranks:
            rank.listen()
        if signals.received and not passed_on:
            passed_on = True
            for rank in running:
                os.kill(rank.process.pid or 0, signals.received)
        if any(rank.process.exitcode for rank in ranks):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            for rank in ranks:
                if rank.process.exitcode is None:  # it waits for the others, and is killed
                    rank.failure = rank.failure or Failure(float("inf"), "", "", 1)
            return


def _raise_failure(ranks: list[Rank], signals: Signals, run_dir: Path) -> None:
    stopped = [rank.signum for rank in ranks if rank.signum in STOP_SIGNALS]
    for index, rank in enumerate(ranks):
        if rank.status and not rank.failure and rank.signum not in STOP_SIGNALS:
            died = rank.status < 0
            how = signal.Signals(rank.signum).name if died else f"status {rank.status}"
            name = _log_name("train.log", index)
            raise TrainingError(f"rank {index}: was ended by {how}; see {run_dir}, {name}")
    if stopped:
        raise Interrupted(signals.received or stopped[0])
    failures = [(rank.failure, index) for index, rank in enumerate(ranks) if rank.failure]
    if not failures:
        return
    failure, index = min(failures)
    everywhere = len(failures) == len(ranks) and len({each.line for each, _ in failures}) == 1
    if failure.traceback and failure.status == TrainingError.exit_status:
        print(f"rank {index}:\n{failure.traceback}", file=sys.stderr, end="")
        logging.getLogger("traceback").error("rank %d:\n%s", index, failure.traceback)
    kind = ConfigError if failure.status == ConfigError.exit_status else TrainingError
    raise kind(failure.line if everywhere else f"rank {index}: {failure.line}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _log_name(name: str, rank: int) -> str:
    path = Path(name)
    return str(path.with_name(f"{path.stem}.rank{rank}{path.suffix}")) if rank else name


def _logging_of(rank: int) -> dict[str, object] | None:
    """Return how a rank logs: rank 0 as this process, the others to files of their own."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if not HydraConfig.initialized():
        return None
    chosen = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    assert isinstance(chosen, dict)
    for handler in (chosen.get("handlers") or {}).values() if rank else ():
        if "filename" in handler:
            handler["filename"] = _log_name(handler["filename"], rank)
        else:
            handler.pop("stream", None)
            handler["class"] = "logging.NullHandler"
    return {str(key): value for key, value in chosen.items()}


# --- in a rank ------------------------------------------------------------------------------------


def run_rank(
    config: Config,
    run_dir: Path,
    overrides: Sequence[str],
    logs: dict[str, object] | None,
    report: Connection,
    output: InheritedFile,
    lock: InheritedFile | None,
) -> None:
    """Train as one of several processes.

    Args:
        config: as everywhere, like ``run_dir`` and ``overrides``.
        logs: how to log, for ``logging.config``.
        report: takes a ``Failure``.
        output: what the launcher prints to.
        lock: of the run's directory, which stays locked until all processes have ended.
    """
    os.dup2(output.descriptor, 1)
    keep_output_open()
    os.setsid()  # the terminal's Ctrl-C reaches the launcher, which passes it on
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    skip_last_collection()
    if logs is not None:
        logging.config.dictConfig(logs)
    with Signals() as signals:
        signals.end_when_stuck()
        try:
            with importing_pipeline():
                from convtrain.pipeline import train

            train(config, run_dir, overrides, signals)
            return
        except Interrupted as interrupted:
            status = interrupted.exit_status
        except Exception as error:
            failure = failure_of(error, run_dir)
            report.send(failure)
            logging.getLogger("traceback").error("%s", failure.traceback or failure.line)
            status = failure.status
    logging.shutdown()
    os._exit(status)  # at once: torch's own end may wait for the other ranks, which wait for it


def _end_with_launcher() -> None:
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    wait([launcher.sentinel])
    os._exit(1)
