"""Time the cost of ``trainer.ema``: ``python -m benchmarks.average``.

One training switches the average on and off every fifty steps, so that a machine's drift affects
both alike. Each row has CPU milliseconds per step, and with / without, pair by pair.
"""

import argparse
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.paired import HEAD, Ratio, Result, machine, paired
from benchmarks.recorder import BLOCK, WARM
from convtrain.command.configure import configure
from convtrain.pipeline import assemble

CASES = {
    "convnet, digits": ("data=digits",),
    "resnet8 at 32x32": ("network=resnet8", "data=synthetic", "data.shape=[3,32,32]"),
    "resnet18 at 32x32": ("network=resnet18", "data=synthetic", "data.shape=[3,32,32]"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    chosen = parser.parse_args()
    print(f"{machine()}\n\n{HEAD}")
    for result in rows(chosen.pairs):
        print(result.row(), flush=True)


def rows(rounds: int = 20) -> list[Result]:
    """Return the rows of the whole table."""
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "convtrain"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return [
        Result(f"step, {name}: trainer.ema / without", measure(typed, rounds).scaled(1000), "ms")
        for name, typed in CASES.items()
    ]


def measure(typed: tuple[str, ...], pairs: int) -> Ratio:
    """Train ``pairs`` blocks with the average, and as many without."""
    fixed = (
        "trainer=cpu", "trainer.ema=0.999", "trainer.max_epochs=1000", "recorder=off",
        "callbacks.progress_bar=false", "trainer.limit_val_batches=0",
    )  # fmt: skip
    config = configure([*fixed, *typed]).config
    with tempfile.TemporaryDirectory() as folder:
        alternate = Alternate(pairs)
        parts = assemble(config, Path(folder), callbacks=[alternate])
        parts.trainer.fit(parts.task, datamodule=parts.data)
    return paired(alternate.seconds[True], alternate.seconds[False])


class Alternate(pl.Callback):
    """Averages in every second block of steps, and times each: with, without, without, with."""

    def __init__(self, pairs: int) -> None:
        self.seconds: dict[bool, list[float]] = {True: [], False: []}
        self._blocks, self._block, self._on = 2 * pairs + WARM, 0, True

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step % BLOCK:
            return
        now = time.process_time()
        if self._block >= WARM:
            self.seconds[self._on].append((now - self._start) / BLOCK)
        self._block += 1
        self._on = self._block % 4 in (0, 3)
        pl_module.average.__dict__.pop("update", None)
        if not self._on:
            pl_module.average.update = lambda: None
        trainer.should_stop = self._block == self._blocks
        self._start = time.process_time()


if __name__ == "__main__":
    main()
