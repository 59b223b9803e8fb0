"""What the gradient recorder costs: ``python -m benchmarks.recorder``.

The same training with and without it, in turn, by Lightning's trainer on both sides, with
TensorBoard open. The time is that of the steps, from the tenth to the last; writing the record is
in it, starting and ending a run are not. Prints milliseconds a step, and with / without, pair by
pair.
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

from benchmarks.paired import compare_timed, machine
from convtrain.config.check import resolve_config
from convtrain.config.compose import CommandLine, compose_leniently
from convtrain.config.names import register_resolvers
from convtrain.models.build import build_model
from convtrain.pipeline import make_data, make_loggers, make_model, make_recorder, make_task

WARM = 10
HORIZON = 2000  # steps that a training is set up for, of which the first are timed
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
    ("small", 410, "recorder=norms"),
    ("small", 410, "recorder=norms", "trainer.gradient_clip_val=1"),
    ("small", 410, "recorder=stats"),
    ("small", 410, "recorder=full"),
    ("resnet18", 60, "recorder=norms"),
    ("resnet18", 60, "recorder=norms", "trainer.gradient_clip_val=1"),
    ("resnet18", 60, "recorder=stats"),
    ("resnet18", 110, "recorder=full"),
)
"""Each: the network, the steps of one training, and what is typed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", default="", help="part of a row's name")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    register_resolvers()
    print(machine())
    print("\n| network, batch 64 | with, ms | without, ms | with / without | middle half |")
    print("| --- | --- | --- | --- | --- |")
    for network, steps, *overrides in CASES:
        name = f"{network}: {' '.join(overrides)}"
        if chosen.only not in name:
            continue
        without = [*overrides[1:], "recorder=off"]
        sides = [_training(network, steps, side) for side in (overrides, without)]
        print(compare_timed(*sides, pairs=chosen.pairs).row(name), flush=True)


def _training(network: str, steps: int, overrides: list[str]) -> Any:
    """Return a function that trains for some steps, and returns the seconds of one of them."""
    common = ("data=synthetic", "data.train_size=4000", "data.test_size=64", "trainer=cpu")
    typed = [*common, *DATA[network], f"trainer.max_steps={HORIZON}", *overrides]
    (composed,) = compose_leniently(CommandLine(overrides=typed))
    config = resolve_config(composed.config, typed)
    torch.manual_seed(0)
    if network == "small":
        model = build_model(SMALL, config.data.shape)
    else:
        typed = [*typed, f"network={network}"]
        (composed,) = compose_leniently(CommandLine(overrides=typed))
        model = make_model(resolve_config(composed.config, typed))

    def train() -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            recorder = make_recorder(config, Path(folder))
            trainer = pl.Trainer(
                accelerator="cpu",
                devices=1,
                max_steps=HORIZON,
                max_epochs=100,
                gradient_clip_val=config.trainer.gradient_clip_val,
                callbacks=[clock, _Stop(steps), *([recorder] if recorder else [])],
                logger=make_loggers(config, Path(folder)),
                limit_val_batches=0,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            with contextlib.redirect_stdout(io.StringIO()):
                trainer.fit(make_task(config, model), datamodule=make_data(config))
        return clock.seconds / (steps - WARM)

    return train


class _Stop(pl.Callback):
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == self._steps


class Clock(pl.Callback):
    """Measures from the end of the ``WARM``-th step to the end of training."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == WARM:
            self._start = time.perf_counter()

    def on_train_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self._start


if __name__ == "__main__":
    main()
