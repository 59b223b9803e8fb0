"""How long a mistake takes to be answered: ``python -m benchmarks.mistakes``, alone on a machine.

Each example of a wrong command, in processes of its own; the best and the median of five are told.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LONGEST = 0.8  # seconds
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
"""A wrong command: how its line begins."""


def answer(words: list[str], folder: Path, **environment: str) -> tuple[float, int, str]:
    """Run a command in a folder; return seconds, exit status and what was said."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )  # fmt: skip
    return time.perf_counter() - started, done.returncode, done.stdout + done.stderr


def main() -> int:
    late = 0
    with tempfile.TemporaryDirectory() as folder:
        for example, line in EXAMPLES.items():
            words = [str(REPOSITORY / "train.py"), *example.split()]
            answers = [answer(words, Path(folder)) for _ in range(5)]
            assert all(status == 2 and said.startswith(line) for _, status, said in answers)
            seconds = [each[0] for each in answers]
            median = statistics.median(seconds)
            late += median > LONGEST
            print(f"{min(seconds):.2f} {median:.2f} s  {example}")
    print(f"{len(EXAMPLES) - late} of {len(EXAMPLES)} within {LONGEST} s")
    return int(late > 0)


if __name__ == "__main__":
    sys.exit(main())
