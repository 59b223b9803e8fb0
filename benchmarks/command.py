"""Time whole commands, each in its own process: ``python -m benchmarks.command --root FOLDER``.

``python train.py`` is compared with a bare script, which needs MNIST's files. Commands that do not
train, and the first training step, are compared with the imports that they need. The last row is
the peak memory of a run of MNIST.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.paired import Result, compare_all, print_table
from benchmarks.setting import EVERYTHING, REPOSITORY

IMPORTS = "import torch, torchvision, pytorch_lightning, os; os._exit(0)"
QUICK_IMPORTS = "import hydra, omegaconf, pydantic"
QUICK = {
    "--help": ["--help"],
    "--cfg job": ["--cfg", "job"],
    "a config error": ["optimizer.lr=-1"],
}


def rows(root: Path | None = None, rounds: int = 5) -> list[Result]:
    ways = {what: partial(_seconds, _train(*typed), 2) for what, typed in QUICK.items()}
    ways["imports"] = partial(_seconds, [sys.executable, "-c", QUICK_IMPORTS])
    quick = compare_all(ways, against="imports", rounds=rounds)
    results = [
        Result(f"{what} / importing hydra, omegaconf and pydantic", ratio, "s", 1.8)
        for what, ratio in quick.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        ratio = compare_all(
            {
                "first": lambda: _to_first_step(folder),
                "imports": lambda: _seconds([sys.executable, "-c", IMPORTS]),
            },
            against="imports",
            rounds=rounds,
        )["first"]
        results.append(Result("first step / the three imports", ratio, "s", 1.25))
        if root is not None:
            results += _whole(root, Path(folder), rounds)
    return results


def _whole(root: Path, folder: Path, rounds: int) -> list[Result]:
    def ours() -> list[str]:
        return _train(
            *EVERYTHING, f"data.root={root.absolute()}", "trainer.max_epochs=2",
            "trainer.log_every_n_steps=50", f"hydra.run.dir={tempfile.mkdtemp(dir=folder)}",
        )  # fmt: skip

    script = [sys.executable, "-m", "benchmarks.bare_script", str(root.absolute()), "64", "2"]
    ways = {"ours": lambda: _seconds(ours()), "script": lambda: _seconds(script)}
    ratio = compare_all(ways, against="script", rounds=rounds)["ours"]
    peak = _peak_gigabytes(ours())
    return [
        Result("whole command, MNIST, 2 epochs of 64: train.py / script", ratio, "s", 1.1),
        Result.alone("peak memory of that command", [peak], "GB", 1.0),
    ]


def _train(*typed: str) -> list[str]:
    return [sys.executable, str(REPOSITORY / "train.py"), *typed]


def _seconds(command: Sequence[str], *expected: int) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, *expected):
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return seconds


def _to_first_step(folder: str) -> float:
    """Start a training, and return the seconds until its first step ends."""
    read, write = os.pipe()
    command = _train(
        f"hydra.run.dir={tempfile.mkdtemp(dir=folder)}", "trust=[benchmarks]",
        f"callbacks.custom=[{{_target_: benchmarks.notice.Notice, pipe: {write}}}]",
    )  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=REPOSITORY, pass_fds=[write],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    noticed = os.read(read, 1)
    seconds = time.perf_counter() - start
    os.close(read)
    process.wait()
    if not noticed:
        raise RuntimeError(f"no step was taken: {' '.join(command)}")
    return seconds


def _peak_gigabytes(command: Sequence[str]) -> float:
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1e6  # KB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder with MNIST's files")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print_table(rows(chosen.root, chosen.rounds))


if __name__ == "__main__":
    main()
