"""Time the answer to each of several wrong commands: ``python -m benchmarks.mistakes``.

Each command runs in its own process.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.paired import Result, print_table
from benchmarks.setting import REPOSITORY

EXAMPLES = {
    "seed=abc": "seed=abc: must be an integer",
    "optimizer.lr=-5": "optimizer.lr=-5: must be greater than 0",
    "trainer.max_epochs=1.5": "trainer.max_epochs=1.5: must be an integer",
    "epochs=1.5": "epochs=1.5: no such key; did you mean trainer.max_epochs?",
    "+new=1": "new=1: no such key",
    "optimizer=adam optimizer.betas=[0.9]": "optimizer.betas=[0.9]: must have at least 2 items",
    "trainer.devices=two": "trainer.devices=two: must be",
    "modle=functional": "modle=functional: no such key; did you mean model?",
    "model=nope": "model=nope: no such choice; choose from",
    "data.bath_size=3": "data.bath_size=3: no such key; did you mean data.batch_size?",
    "data.num_classes=7": "data.num_classes=7: does not match the 10 names",
    "callbacks.checkpoint.monitor=val/f1": "callbacks.checkpoint.monitor=val/f1: must be",
    "data.batch_size=5000": "data.batch_size=5000: larger than the training data of",
    "callbacks.custom=[{_target_:os.system}]": "callbacks.custom.0._target_=os.system: not allowed",
}
"""Wrong commands, and the beginnings of their error lines."""


def answer(words: list[str], folder: Path, **environment: str) -> tuple[float, int, str]:
    """Run a command in a folder; return seconds, exit status and output."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )  # fmt: skip
    return time.perf_counter() - started, done.returncode, done.stdout + done.stderr


def rows(rounds: int = 5) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return [_row(example, line, Path(folder), rounds) for example, line in EXAMPLES.items()]


def _row(example: str, line: str, folder: Path, rounds: int) -> Result:
    words = [str(REPOSITORY / "train.py"), *example.split()]
    answers = [answer(words, folder) for _ in range(rounds)]
    assert all(status == 2 and said.startswith(line) for _, status, said in answers)
    return Result.alone(f"`{example}`", [seconds for seconds, *_ in answers], "s", 0.8)


if __name__ == "__main__":
    print_table(rows())
