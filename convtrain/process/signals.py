"""Being asked to stop: SIGTERM (preemption), SIGINT (Ctrl-C), SIGHUP (the terminal is closed), or a
signal of SLURM's before its limit: SIGUSR1, as docs/devices.md asks for, or SIGUSR2, as submitit
does."""

import logging
import os
import signal
import subprocess
import threading
import time
from types import FrameType
from typing import Any

log = logging.getLogger("convtrain")

PATIENCE = 15.0  # seconds that a signal may wait for its handler
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")  # Windows has the first two
LIMITS = ("SIGUSR1", "SIGUSR2")
REQUEUE_STATUS = 144  # what submitit's local mode takes for "put it into the queue again"


class Interrupted(BaseException):
    """A signal ended the run. Whoever handles every ``Exception`` does not handle this one.

    Attributes:
        signum: of the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_status(self) -> int:
        return 128 + self.signum

    @property
    def is_limit(self) -> bool:
        """Whether the time is up, rather than nobody wants to go on."""
        return self.signum in {getattr(signal, name, None) for name in LIMITS}


def answer(handler: Any) -> dict[int, Any]:
    """Let a handler answer all these signals; return what has answered them before.

    A signal that is ignored stays ignored where ``nohup`` has asked for it.
    """
    before = {}
    for name in NAMES:
        signum = getattr(signal, name, None)
        if signum is None or (name == "SIGHUP" and signal.getsignal(signum) == signal.SIG_IGN):
            continue
        before[int(signum)] = signal.signal(signum, handler)
    return before


class Signals:
    """Catches the signals that ask a run to stop, while it is entered.

    The first is only remembered while the run is busy, that is, while somebody looks at
    ``received`` often and stops where it may; otherwise it ends the run there and then. A second
    one ends the process at once. Nothing is ever saved within a handler.

    Attributes:
        received: the number of the signal, once there was one.
        busy: whether somebody looks.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.busy = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        self.install()
        return self

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def install(self) -> None:
        """Take the signals over, again where a library has put its own handler."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._before = {**answer(self._handle), **self._before}

    def end_when_stuck(self) -> None:
        """End this process if a signal's handler does not run, as in a wait for a dead process.

        Python runs a handler between two instructions of its own, so not within a library that
        waits. But the system tells a pipe at once, which a thread reads.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def watch() -> None:
            while (signum := os.read(reading, 1)[0]) not in self._before:
                pass
            time.sleep(PATIENCE)
            if self.received is None:
                os._exit(128 + signum)

        threading.Thread(target=watch, daemon=True, name="signals").start()

    def end_with_parent(self) -> None:
        """Stop as if asked to by SIGTERM when the launcher that started this process has died."""
        parent = os.getppid()

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(1)
            if self.received is None:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE / 2)
            os._exit(128 + signal.SIGTERM)

        threading.Thread(target=watch, daemon=True, name="launcher").start()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + signum)
        self.received = signum
        if not self.busy:
            raise Interrupted(signum)


def requeue() -> int | None:
    """Put this job into its queue again, and say so where that fails.

    Returns:
        The exit status that asks for it; None where another one does as well.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        return REQUEUE_STATUS
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
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
