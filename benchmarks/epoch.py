"""An epoch of training: ``python -m benchmarks.epoch``.

Ours has everything on: metrics, TensorBoard, metrics.csv, ``recorder=norms``, the progress bar. Its
peers train the same network on as many images of the same size: a bare loop over a resident tensor,
in torch's default layout and without a single metric; the same loop over a stock DataLoader; and
Lightning as templates set it up, with torchmetrics, ``self.log``, its bar and TensorBoard.
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from benchmarks.paired import Result, compare_all, print_table
from benchmarks.setting import MEAN, STD, bare_network, configure, made_up, quiet
from convtrain import pipeline
from convtrain.data.images import Images, Splits
from convtrain.runs.directory import RunDirectory

STEPS = {64: 430, 512: 54}
"""By batch size: the steps that are timed, half an epoch."""

GOALS = {64: 0.90, 512: 0.80}


def rows(rounds: int = 7) -> list[Result]:
    quiet()
    pixels, labels = made_up()
    results = []
    for batch_size, steps in STEPS.items():
        ways: dict[str, Callable[[], float]] = {
            "ours": lambda b=batch_size, s=steps: ours(pixels, labels, b, s),
            "bare loop": lambda b=batch_size, s=steps: bare(_resident(pixels, labels, b), s),
            "DataLoader": lambda b=batch_size, s=steps: bare(stock_loader(pixels, labels, b), s),
            "template": lambda b=batch_size, s=steps: template(pixels, labels, b, s),
        }
        ratios = compare_all(ways, against="bare loop", rounds=rounds)
        for name, ratio in ratios.items():
            goal = GOALS[batch_size] if name == "ours" else None
            what = f"training step, batch {batch_size}: {name} / bare loop"
            results.append(Result(what, ratio.scaled(1000 / steps), "ms", goal))
    return results


def ours(pixels: Tensor, labels: Tensor, batch_size: int, steps: int) -> float:
    """Train as ``python train.py`` does, and return the seconds of the epoch."""
    return train(pixels, labels, f"data.batch_size={batch_size}", steps=steps)


def train(pixels: Tensor, labels: Tensor, *overrides: str, steps: int) -> float:
    config = configure(
        *overrides, "trainer.max_epochs=1", f"trainer.limit_train_batches={steps}",
        "trainer.limit_val_batches=0",
    )  # fmt: skip
    some = Images(pixels[:64], labels[:64])
    splits = Splits(Images(pixels, labels), some, some)
    clock = Clock()
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(pipeline, "_load_splits", return_value=splits),
        contextlib.redirect_stdout(io.StringIO()),
        Path(os.devnull).open("w") as nowhere,
    ):
        run = RunDirectory(Path(folder))
        data = pipeline.make_data(config)
        task = pipeline.make_task(config, pipeline.make_model(config))
        callbacks = pipeline.make_callbacks(config, run, data)
        for callback in callbacks:
            if isinstance(callback, pl.callbacks.ProgressBar):
                callback._console = Console(
                    file=nowhere, force_terminal=True
                )  # draws as for a user
        recorder = pipeline.make_recorder(config, run.path)
        recorders = [recorder] if recorder else []
        trainer = pipeline.make_trainer(
            run_dir=run.path,
            callbacks=[clock, *callbacks, *recorders],
            loggers=pipeline.make_loggers(config, run.path),
            **config.trainer.model_dump(exclude=pipeline.OF_THE_MODEL),
        )
        trainer.fit(task, datamodule=data)
    return clock.seconds


class Clock(pl.Callback):
    """Takes the time of an epoch's steps."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self._start


def bare(batches: Any, steps: int) -> float:
    """Train by a loop of five lines, and return the seconds of ``steps`` steps."""
    model = bare_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    start = time.perf_counter()
    for _, (images, targets) in zip(range(steps), batches, strict=False):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()
    return time.perf_counter() - start


def _resident(pixels: Tensor, labels: Tensor, batch_size: int) -> Any:
    images = pixels.float().div_(255).sub_(MEAN).div_(STD)
    order = torch.randperm(len(images))
    return ((images[chosen], labels[chosen]) for chosen in order.split(batch_size))


class OneByOne(Dataset):
    """Images as torchvision's datasets give them: one at a time, through a transform."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels, labels.tolist()
        self.transform = v2.Compose(
            [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([MEAN], [STD])]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), self.labels[index]


def stock_loader(pixels: Tensor, labels: Tensor, batch_size: int) -> DataLoader:
    return DataLoader(OneByOne(pixels, labels), batch_size=batch_size, shuffle=True)


class Template(pl.LightningModule):
    """The module of a widely used template, in short."""

    def __init__(self) -> None:
        super().__init__()
        self.net: nn.Module = bare_network()
        self.loss, self.acc = MeanMetric(), MulticlassAccuracy(10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, targets = batch
        scores = self.net(images)
        loss = F.cross_entropy(scores, targets)
        self.loss(loss)
        self.acc(scores.argmax(1), targets)
        self.log("train/loss", self.loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def template(pixels: Tensor, labels: Tensor, batch_size: int, steps: int) -> float:
    """Train as a template of Lightning and Hydra does, and return the seconds of the epoch."""
    clock = Clock()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_train_batches=steps,
            callbacks=[clock],
            logger=pl.loggers.TensorBoardLogger(folder),
            default_root_dir=folder,
            enable_model_summary=False,
        )
        trainer.fit(Template(), stock_loader(pixels, labels, batch_size))
    return clock.seconds


if __name__ == "__main__":
    print_table(rows())
