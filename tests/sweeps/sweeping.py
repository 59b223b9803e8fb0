"""A sweep as a user starts it, with a witness in every process that trains."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

WITNESS = '''
import json, os
from pathlib import Path
import pytorch_lightning as pl

class Witness(pl.Callback):
    """Writes a line for every step that is taken, wherever it is taken."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        line = {
            "job": Path(trainer.default_root_dir).name,
            "rank": trainer.global_rank,
            "devices": trainer.world_size,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "pid": os.getpid(),
        }
        with open(os.environ["WITNESS"], "a") as file:
            file.write(json.dumps(line) + "\\n")
'''
QUICK = (
    "trainer.accelerator=cpu", "data.limit=128", "scheduler=none", "logger=csv", "recorder=off",
    "hydra.sweep.subdir=${hydra.job.num}",
)  # fmt: skip
CUSTOM = ("trust=[witness]", "callbacks.custom=[{_target_: witness.Witness}]")


class Sweep:
    """``python train.py -m`` in a folder of its own.

    Args:
        folder: for the sweep's directory, the witness and what it saw.
        custom: whether the witness is called; otherwise the arguments may do it.
    """

    def __init__(self, folder: Path, *, custom: bool = True) -> None:
        self.folder = folder
        self.custom = CUSTOM if custom else ()
        self.path = folder / "sweep"
        self.seen = folder / "seen.jsonl"
        folder.mkdir(exist_ok=True)
        (folder / "witness.py").write_text(WITNESS)
        self.mark = uuid.uuid4().hex
        self.environment = {
            **os.environ, "PYTHONPATH": f"{folder}:{REPOSITORY}", "WITNESS": str(self.seen),
            "TEST_MARK": self.mark,
        }  # fmt: skip
        self.process: subprocess.Popen[str] | None = None

    def start(
        self, *arguments: str, new_session: bool = False, **environment: str
    ) -> "subprocess.Popen[str]":
        place = f"hydra.sweep.dir={self.path}"
        self.process = subprocess.Popen(
            [sys.executable, "train.py", "-m", *arguments, *QUICK, *self.custom, place],
            cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**self.environment, **environment}, start_new_session=new_session,
        )  # fmt: skip
        return self.process

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Return status, stdout and stderr."""
        process = self.start(*arguments, new_session=False, **environment)
        try:
            out, err = process.communicate(timeout=300)
        finally:
            self.kill()
        return process.returncode, out, err

    def processes(self) -> Iterator[int]:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    yield int(folder.name)
            except OSError:
                continue

    def kill(self, *, only_the_command: bool = False) -> None:
        """SIGKILL, to the command alone or to all that it has started."""
        found = [self.process.pid] if only_the_command and self.process else list(self.processes())
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self.process is not None:
            self.process.wait()
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()

    def steps(self) -> list[dict[str, Any]]:
        if not self.seen.exists():
            return []
        whole = self.seen.read_text().rpartition("\n")[0]  # without a line that is being written
        return [json.loads(line) for line in whole.splitlines()]

    def results(self) -> dict[str, dict[str, Any]]:
        """Return what stands in each ``result.json``, by the number of the job."""
        found = sorted(self.path.glob("*/result.json"), key=lambda path: int(path.parent.name))
        return {path.parent.name: json.loads(path.read_text()) for path in found}


def wait_until(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()
