"""Starting the processes of a training, one a device, and watching over them.

The process that was typed holds no torch: it starts all ranks at once, hands signals on to them,
and ends them all where one of them fails or dies. Nothing of theirs is left in it, so that the jobs
of a sweep can follow one another.
"""

import logging
import logging.config
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from traceback import format_exception
from typing import IO, Any

from convtrain.command.sweep import cores
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, ConvtrainError, TrainingError, error_line
from convtrain.process.atomic import line_on_full_disk
from convtrain.process.imports import ending_at_once, imports_kept
from convtrain.process.lock import held
from convtrain.process.output import keep_output_open
from convtrain.process.ranks import LAUNCHER_ENV, RankInfo, rank_info, settle_rank
from convtrain.process.signals import NAMES, Interrupted, Signals
from convtrain.run.directory import Run
from convtrain.run.result import Result

log = logging.getLogger("convtrain")

GRACE = 10.0  # seconds that the others have to end by themselves after one has failed
STOP_SIGNALS = {getattr(signal, name) for name in NAMES if hasattr(signal, name)}


@dataclass(frozen=True)
class Failure:
    """What a process tells of its end.

    Attributes:
        time: of the failure, in seconds since 1970; the first of several is the cause.
        line: for the terminal.
        traceback: empty for what a user can mend and no exception lies behind.
        status: to exit with.
    """

    time: float
    line: str
    traceback: str
    status: int


@dataclass
class Rank:
    """A process that was started."""

    process: SpawnProcess
    told: Connection
    failure: Failure | None = None

    def listen(self) -> None:
        """Take what the process has told, if anything."""
        try:
            if self.failure is None and self.told.poll():
                self.failure = self.told.recv()
        except EOFError:
            pass


class Handed:
    """An open file that a process is given when it is started."""

    def __init__(self, file: IO[Any]) -> None:
        self.descriptor = file.fileno()

    def __getstate__(self) -> Any:
        from multiprocessing.reduction import DupFd  # which Windows has not

        return DupFd(self.descriptor)

    def __setstate__(self, copy: Any) -> None:
        self.descriptor = copy.detach()


def processes_to_start(config: Config) -> int:
    """Return how many processes a training needs; 1 where somebody else has started them all.

    Raises:
        ConfigError: the machine lacks the devices asked for.
    """
    chosen = config.trainer
    if rank_info().launcher is not None:
        return 1
    if isinstance(chosen.devices, int):
        return chosen.devices
    if chosen.strategy == "auto":
        return 1
    from convtrain.training.devices import check_devices, device_count

    check_devices(chosen.accelerator, chosen.devices, chosen.strategy)
    return device_count(chosen.accelerator)


def train_in_processes(
    count: int, config: Config, run_dir: Path, overrides: Sequence[str], signals: Signals
) -> Result:
    """Train in ``count`` processes of this machine and return the result.

    Raises:
        ConvtrainError: what the first process that failed said, or how it died.
        Interrupted: a signal to this process, or to one of them, has ended the training.
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
    result = Run(run_dir).read_result()
    if result is None:
        raise TrainingError(f"{run_dir}: the processes have ended, but there is no result.json")
    return result


# --- the process that was typed -------------------------------------------------------------------


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
    handed = Handed(sys.stdout), None if lock is None else Handed(lock)
    ranks = []
    for rank in range(count):
        told, tell = context.Pipe(duplex=False)
        process = context.Process(
            target=run_rank, name=f"rank {rank}",
            args=(config, run_dir, list(overrides), _logging_of(rank), tell, *handed),
        )  # fmt: skip
        with _environment({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}):
            process.start()
        tell.close()
        ranks.append(Rank(process, told))
    return ranks


def _watch(ranks: list[Rank], signals: Signals) -> None:
    """Return when all processes have ended, or had their time to after one has failed."""
    passed_on, deadline = False, float("inf")
    while running := [rank for rank in ranks if rank.process.exitcode is None]:
        wait([*(r.process.sentinel for r in running)], timeout=0.1)
        for rank in ranks:
            rank.listen()
        if signals.received and not passed_on:
            passed_on = True
            for rank in running:
                os.kill(rank.process.pid or 0, signals.received)
        if any(rank.process.exitcode for rank in ranks):
            deadline = min(deadline, time.monotonic() + GRACE)
        if time.monotonic() > deadline:
            for rank in ranks:
                if rank.process.exitcode is None:
                    rank.failure = rank.failure or Failure(float("inf"), "", "", 1)
            return


def _raise_failure(ranks: list[Rank], signals: Signals, run_dir: Path) -> None:
    statuses = [rank.process.exitcode or 0 for rank in ranks]
    asked = [s - 128 if s > 128 else -s for s in statuses]
    stopped = [signum for signum in asked if signum in STOP_SIGNALS]
    failures = [(r.failure.time, i, r.failure) for i, r in enumerate(ranks) if r.failure]
    died = [
        i
        for i, r in enumerate(ranks)
        if statuses[i] and not r.failure and asked[i] not in STOP_SIGNALS
    ]
    if died:
        first, status = died[0], statuses[died[0]]
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        raise TrainingError(f"rank {first}: was ended by {how}; see {run_dir}, {_log_name(first)}")
    if stopped:
        raise Interrupted(signals.received or stopped[0])
    if failures:
        _, index, failure = min(failures)
        together = len(failures) == len(ranks) and len({f.line for _, _, f in failures}) == 1
        line = failure.line if together else f"rank {index}: {failure.line}"
        if failure.traceback and failure.status == TrainingError.exit_status:
            print(f"rank {index}:\n{failure.traceback}", file=sys.stderr, end="")
            logging.getLogger("traceback").error("rank %d:\n%s", index, failure.traceback)
        kind = ConfigError if failure.status == ConfigError.exit_status else TrainingError
        raise kind(line)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    settle_rank()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _log_name(rank: int) -> str:
    return f"train.rank{rank}.log" if rank else "train.log"


def _logging_of(rank: int) -> dict[str, Any] | None:
    """Return how a process logs: rank 0 as this one does, the others to files of their own."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if not HydraConfig.initialized():
        return None
    chosen: Any = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    if rank and isinstance(chosen, dict):
        for handler in (chosen.get("handlers") or {}).values():
            if "filename" in handler:
                path = Path(handler["filename"])
                handler["filename"] = str(path.with_name(f"{path.stem}.rank{rank}{path.suffix}"))
            else:
                handler.pop("stream", None)
                handler["class"] = "logging.NullHandler"
    return chosen if isinstance(chosen, dict) else None


# --- a process that trains ------------------------------------------------------------------------


def run_rank(
    config: Config,
    run_dir: Path,
    overrides: Sequence[str],
    logs: dict[str, Any] | None,
    tell: Connection,
    output: Handed,
    lock: Handed | None,
) -> None:
    """Train as one of several processes; exit as soon as it is over, so that the others notice.

    Args:
        config: as everywhere, like ``run_dir`` and ``overrides``.
        logs: how to log, for ``logging.config``.
        tell: takes a ``Failure``.
        output: where the launcher prints to.
        lock: of the run's directory, which is free only when all processes have ended.
    """
    os.dup2(output.descriptor, 1)
    keep_output_open()
    os.setsid()  # the terminal's Ctrl-C goes to the launcher, which hands it on
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    if logs is not None:
        logging.config.dictConfig(logs)
    status = 0
    with ending_at_once(), Signals() as signals:
        signals.end_when_stuck()
        try:
            with imports_kept():
                quiet_libraries()
                from convtrain.pipeline import train

            train(config, run_dir, overrides, signals)
        except Interrupted as interrupted:
            status = interrupted.exit_status
        except Exception as error:
            failure = failure_of(error, run_dir)
            tell.send(failure)
            logging.getLogger("traceback").error("%s", failure.traceback or failure.line)
            status = failure.status
    if status:
        logging.shutdown()
        os._exit(status)


def failure_of(error: Exception, run_dir: Path) -> Failure:
    """Return what to tell of an exception that has ended a training."""
    if isinstance(error, ConvtrainError):
        cause = error.__cause__
        trace = "" if cause is None else "".join(format_exception(cause))
        return Failure(time.time(), str(error), trace, error.exit_status)
    line = line_on_full_disk(error, run_dir) or error_line(error)
    return Failure(time.time(), line, "".join(format_exception(error)), 1)


def tell_failure(here: RankInfo, error: Exception, message: str) -> None:
    """Show what has ended a process that was started from outside, with its traceback."""
    cause = error.__cause__ if isinstance(error, ConvtrainError) else error
    if cause is not None:
        print("".join(traceback.format_exception(cause)), file=sys.stderr, end="")
    if here.rank:
        print(f"rank {here.rank}: {message}", file=sys.stderr, flush=True)


def _end_with_launcher() -> None:
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    wait([launcher.sentinel])
    os._exit(1)


NOISE = re.compile(r"💡 Tip|`Trainer\((limit_|val_check_interval)|TPU available")
"""What Lightning logs and nobody needs: advertisements, defaults, what this is not."""

NOISY_WARNINGS = (
    ".*LeafSpec.* is deprecated",  # within Lightning
    "Checkpoint directory .* exists and is not empty",  # where a run is resumed
    "The number of training batches .* is smaller than the logging interval",
    ".*sync_dist=True",  # the task sums over the ranks itself
)


def quiet_libraries() -> None:
    """Keep libraries' notices out of the terminal; the log file has those that say something."""
    import pytorch_lightning  # noqa: F401  (sets up its logger when it is imported)

    for name in (
        "pytorch_lightning",
        "lightning_fabric",
        "lightning",
        "lightning.pytorch",
        "lightning.fabric",
    ):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        logging.getLogger(f"{name}.utilities.rank_zero").addFilter(_says_something)
    logging.raiseExceptions = False  # a full disk is one line, not one for each writer it stops
    threading.excepthook = _report_thread
    logging.captureWarnings(True)
    warnings.filterwarnings("default", module="pytorch_lightning")
    for message in NOISY_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("py.warnings").setLevel(logging.WARNING)


def _says_something(record: logging.LogRecord) -> bool:
    return NOISE.search(record.getMessage()) is None


def _report_thread(failed: threading.ExceptHookArgs) -> None:
    """Leave a full disk, which stops TensorBoard's thread, to the training that meets it next."""
    if failed.exc_value is None or line_on_full_disk(failed.exc_value, Path()) is None:
        threading.__excepthook__(failed)
