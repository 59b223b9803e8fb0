"""Compare the start-up of two processes with that of one: ``python -m benchmarks.processes``.

Each command takes one step, and is timed from its start to its end.
"""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.paired import Result, compare_all, print_table
from benchmarks.setting import REPOSITORY

ONE_STEP = (
    "trainer.accelerator=cpu", "trainer.max_steps=1", "trainer.limit_val_batches=0",
    "trainer.limit_test_batches=0", "logger=none", "callbacks.progress_bar=false",
)  # fmt: skip
WAYS = {
    "one process": ["train.py", "trainer=cpu"],
    "two processes": ["train.py", "trainer=ddp", "trainer.devices=2"],
    "torchrun": [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py",
    ],
}  # fmt: skip


def rows(rounds: int = 5) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        ratios = compare_all(
            {name: partial(_seconds, way, Path(folder)) for name, way in WAYS.items()},
            against="one process",
            rounds=rounds,
        )
    return [
        Result("start-up: trainer.devices=2 / one process", ratios["two processes"], "s", 1.5),
        Result("start-up: torchrun, two processes / one process", ratios["torchrun"], "s", None),
    ]


def _seconds(way: list[str], folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *way, *ONE_STEP, f"hydra.run.dir={tempfile.mkdtemp(dir=folder)}"],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    return time.perf_counter() - start


if __name__ == "__main__":
    print_table(rows())
