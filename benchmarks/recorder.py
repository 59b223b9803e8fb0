"""Time the cost of the gradient recorder: ``python -m benchmarks.recorder``.

Lightning's trainer trains with TensorBoard; the recorder alternates, fifty steps on and fifty off,
so that a machine's drift affects both alike. A flush and a sampled step are in the middle of its
fifty steps. Each row has milliseconds per step, and with / without, pair by pair.
"""

import argparse
import contextlib
import io
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.paired import Ratio, Result, machine, paired
from convtrain.assembly import make_data, make_loggers, make_model, make_recorder, make_task
from convtrain.command.configure import configure
from convtrain.gradients.record.recorder import Recorder
from convtrain.models.build import build_model
from convtrain.training.trainer import NotProfiled

BLOCK = 50  # steps, as many as from flush to flush
WARM = 2  # untimed blocks
HORIZON = 2000  # steps, at least, that the recorder plans for
CONV = {"kernel_size": 3, "padding": 1}
SMALL = [
    {"Conv2d": {"out_channels": 16, **CONV}},
    "ReLU",
    {"MaxPool2d": {"kernel_size": 2}},
    {"Conv2d": {"out_channels": 32, **CONV}},
    "ReLU",
    {"MaxPool2d": {"kernel_size": 2}},
    "Flatten",
    {"Linear": {"out_features": 10}},
]
DATA = {
    "small": ("data.shape=[1,28,28]", "data.mean=[0.5]", "data.std=[0.5]"),
    "resnet18": ("data.shape=[3,32,32]", "data.mean=[.5,.5,.5]", "data.std=[.5,.5,.5]"),
}
CASES = (
    ("small", "recorder=norms"),
    ("small", "recorder=norms", "trainer.gradient_clip_val=1"),
    ("small", "recorder=stats"),
    ("small", "recorder=full"),
    ("resnet18", "recorder=norms"),
    ("resnet18", "recorder=norms", "trainer.gradient_clip_val=1"),
    ("resnet18", "recorder=stats"),
    ("resnet18", "recorder=full"),
)
"""Networks and overrides."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--only", default="", help="part of a row's name")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "convtrain"):
        logging.getLogger(name).setLevel(logging.ERROR)
    print(machine())
    print("\n| network, batch 64 | with, ms | without, ms | with / without | middle half |")
    print("| --- | --- | --- | --- | --- |")
    for network, *overrides in CASES:
        name = f"{network}: {' '.join(overrides)}"
        if chosen.only in name:
            print(measure(network, overrides, chosen.pairs).row(name), flush=True)


def rows(rounds: int = 10) -> list[Result]:
    """Return the rows of the whole table."""
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "convtrain"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return [
        Result(
            f"step, {network}: {' '.join(overrides)}: with / without",
            measure(network, overrides, rounds).scaled(1000),
            "ms",
        )
        for network, *overrides in CASES
    ]


def measure(network: str, overrides: list[str], pairs: int) -> Ratio:
    """Train ``pairs`` blocks with the recorder, and as many without."""
    common = ("data=synthetic", "data.train_size=4000", "data.test_size=64", "trainer=cpu")
    typed = [*common, *DATA[network], *overrides]
    typed += [f"network={network}"] if network != "small" else []
    config = configure(typed).config
    torch.manual_seed(0)
    model = make_model(config) if network != "small" else build_model(SMALL, config.data.shape)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        recorder = make_recorder(config, Path(folder))
        assert recorder is not None
        alternate = Alternate(recorder, pairs)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=max(HORIZON, (2 * pairs + WARM + 1) * BLOCK),
            max_epochs=-1,
            gradient_clip_val=config.trainer.gradient_clip_val,
            profiler=NotProfiled(),
            callbacks=[recorder, alternate],
            logger=make_loggers(config, Path(folder)),
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(make_task(config, model), datamodule=make_data(config))
    return paired(alternate.seconds[True], alternate.seconds[False])


class Alternate(pl.Callback):
    """Removes the recorder after every second block of steps, and times each block.

    The order within a pair alternates too: with, without, without, with.
    """

    def __init__(self, recorder: Recorder, pairs: int) -> None:
        self.seconds: dict[bool, list[float]] = {True: [], False: []}
        self._recorder, self._blocks = recorder, 2 * pairs + WARM
        self._block, self._on = 0, True  # on, so that the first block begins amid a flush

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step % BLOCK != BLOCK // 2:
            return
        now = time.perf_counter()
        if self._block >= WARM:
            self.seconds[self._on].append((now - self._start) / BLOCK)
        self._block += 1
        self._on = self._block % 4 in (0, 3)
        trainer.callbacks = [self._recorder, self] if self._on else [self]  # from the next hook on
        trainer.should_stop = self._block == self._blocks
        self._start = now


if __name__ == "__main__":
    main()
