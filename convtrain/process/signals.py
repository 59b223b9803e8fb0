"""The signals that stop a run: SIGTERM (preemption), SIGINT (Ctrl-C), SIGHUP (the terminal is
closed), SIGUSR1 (SLURM, before the time limit) and SIGUSR2 (submitit, before the time limit)."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeAlias

log = logging.getLogger("convtrain")

Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = [s for s in signal.Signals if s.name in NAMES]  # Windows has the first two
LIMIT_SIGNALS = [signum for signum in STOP_SIGNALS if signum.name.startswith("SIGUSR")]
"""The signals that announce a scheduler's time limit."""
PATIENCE_SECONDS = 15.0  # for a handler to run after its signal
REQUEUE_STATUS = 144  # exit status by which submitit's local mode requeues a job


class Interrupted(BaseException):
    """A signal has stopped the run. ``except Exception`` does not catch this."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_status(self) -> int:
        return 128 + self.signum


def answer(handler: Handler) -> dict[int, Handler]:
    """Handle all stop signals, except SIGHUP under ``nohup``; return the old handlers."""
    before: dict[int, Handler] = {}
    for signum in STOP_SIGNALS:
        is_nohup = signum == getattr(signal, "SIGHUP", None)
        if not (is_nohup and signal.getsignal(signum) == signal.SIG_IGN):
            before[int(signum)] = signal.signal(signum, handler)
    return before


class Signals:
    """A context manager that handles the signals that stop a run.

    While ``busy``, the handler stores the first signal in ``received``; the run checks it often and
    stops where it can be resumed. Otherwise the first signal raises ``Interrupted``. A second
    signal ends the process at once. A handler saves nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.busy = False
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> "Signals":
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def install(self) -> None:
        """Install the handlers; call it again after a library has replaced them."""
        if threading.current_thread() is threading.main_thread():
            self._before = {**answer(self._handle), **self._before}

    def end_when_stuck(self) -> None:
        """End this process ``PATIENCE_SECONDS`` after a signal whose handler has not run.

        Python runs handlers only between bytecodes, so not while a library waits for a dead rank.
        Its C handler writes to the wake-up pipe at once, and a thread reads the pipe.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def watch() -> None:
            while (signum := os.read(reading, 1)[0]) not in self._before:
                pass
            time.sleep(PATIENCE_SECONDS)
            if self.received is None:
                os._exit(128 + signum)

        threading.Thread(target=watch, daemon=True, name="signals").start()

    def end_with_parent(self) -> None:
        """Send SIGTERM to this process when its parent, the launcher, has ended."""
        parent = os.getppid()

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(1)
            if self.received is None:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE_SECONDS / 2)
            os._exit(128 + signal.SIGTERM)

        threading.Thread(target=watch, daemon=True, name="launcher").start()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + signum)
        self.received = signum
        if not self.busy:
            raise Interrupted(signum)


def requeue() -> int | None:
    """Requeue this job in its scheduler; return the exit status that this needs, or None."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        return REQUEUE_STATUS
    if (job := os.environ.get("SLURM_JOB_ID")) is None:
        return None
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        failed = done.stderr.strip() or f"status {done.returncode}" if done.returncode else ""
    except OSError as error:
        failed = str(error)
    if failed:
        log.warning("scontrol requeue %s: %s", job, failed)
    else:
        log.warning("SLURM has put job %s into its queue again", job)
    return None
