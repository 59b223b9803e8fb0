"""Time an epoch of training: ``python -m benchmarks.epoch``.

Ours has everything on: metrics, TensorBoard, metrics.csv, ``recorder=norms``, the progress bar. Its
peers train the same network on as many images of the same size:

- a bare loop over one tensor in memory, in torch's default layout and without metrics;
- the same loop over a stock DataLoader;
- Lightning as in a common template, with torchmetrics, ``self.log``, its bar and TensorBoard.
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from benchmarks.paired import Ratio, Result, compare_all, paired, print_table
from benchmarks.setting import MEAN, STD, bare_network, configure, made_up, quiet
from convtrain.data.images import Images, Splits
from convtrain.pipeline import assemble

GOALS = {64: 0.90, 512: 0.80}
"""By batch size."""

EPOCHS = 15
BLOCK = 0.3  # seconds, about, of a block of our steps


def rows(rounds: int = EPOCHS) -> list[Result]:
    quiet()
    pixels, labels = made_up()
    results = []
    for batch_size, goal in GOALS.items():
        steps = -(-len(labels) // batch_size)
        what = f"training step, batch {batch_size}"
        ratio = beside_bare(pixels, labels, batch_size, epochs=rounds)
        results.append(Result(f"{what}: ours / bare loop", ratio.scaled(1000 / steps), "ms", goal))
        half = steps // 2
        loader = stock_loader(pixels, labels, batch_size)
        ways: dict[str, Callable[[], float]] = {
            "bare loop": partial(_bare_resident, pixels, labels, batch_size, half),
            "DataLoader": partial(_bare_loader, loader, half),
            "template": partial(template, loader, half),
        }
        for name, ratio in compare_all(ways, against="bare loop", rounds=rounds // 2).items():
            results.append(Result(f"{what}: {name} / bare loop", ratio.scaled(1000 / half), "ms"))
    return results


def beside_bare(pixels: Tensor, labels: Tensor, batch_size: int, *, epochs: int) -> Ratio:
    """Alternate blocks of steps of ``python train.py`` and of a bare loop.

    A change of the machine's speed then affects both. Our epochs include log entries, metrics and
    the checkpoint.
    """
    config = configure(
        f"data.batch_size={batch_size}", f"trainer.max_epochs={epochs + 1}",
        "trainer.limit_val_batches=0",
    )  # fmt: skip
    some = Images(pixels[:64], labels[:64])
    splits = Splits(Images(pixels, labels), some, some)
    beside = BesideBare(_resident(pixels, labels, batch_size))
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        Path(os.devnull).open("w") as nowhere,
    ):
        parts = assemble(config, Path(folder), splits=splits, callbacks=[beside])
        bar: Any = parts.trainer.progress_bar_callback
        bar._console = Console(file=nowhere, force_terminal=True)  # draws as for a user
        parts.trainer.fit(parts.task, datamodule=parts.data)
    return paired(beside.ours[1:], beside.others[1:])  # the first epoch warms up


class BesideBare(pl.Callback):
    """Trains a bare loop after each block of our steps, and times both."""

    def __init__(self, batches: Any) -> None:
        self.ours: list[float] = []
        self.others: list[float] = []
        self._batches, self._model = batches, bare_network()
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.05, momentum=0.9)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_epoch()
        self._steps, self._other = 0, 0.0
        self._began = self._turn = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        self._steps += 1
        if time.perf_counter() - self._turn > BLOCK or trainer.is_last_batch:
            seconds = train_bare(self._model, self._optimizer, self._batches, self._steps)
            self._steps, self._other = 0, self._other + seconds
            self._turn = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end_epoch()

    def _end_epoch(self) -> None:
        if hasattr(self, "_began"):
            self.ours.append(time.perf_counter() - self._began - self._other)
            self.others.append(self._other)


def bare(batches: Any, steps: int) -> float:
    """Train by a minimal loop, and return the seconds of ``steps`` steps."""
    model = bare_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = chain([next(batches)], batches)  # prepares the data before the clock starts
    return train_bare(model, optimizer, batches, steps)


def train_bare(model: nn.Module, optimizer: torch.optim.SGD, batches: Any, steps: int) -> float:
    start = time.perf_counter()
    for _, (images, targets) in zip(range(steps), batches, strict=False):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()
    return time.perf_counter() - start


def _resident(pixels: Tensor, labels: Tensor, batch_size: int) -> Any:
    """Yield batches forever, from images converted to floats once."""
    images = pixels.float().div_(255).sub_(MEAN).div_(STD)
    while True:
        for chosen in torch.randperm(len(images)).split(batch_size):
            yield images[chosen], labels[chosen]


class OneByOne(Dataset):
    """Yields one transformed image at a time, as torchvision's datasets do."""

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


class Clock(pl.Callback):
    """Times the steps of an epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self._start


class Template(pl.LightningModule):
    """The LightningModule of a widely used template, shortened."""

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


def _bare_resident(pixels: Tensor, labels: Tensor, batch_size: int, steps: int) -> float:
    return bare(_resident(pixels, labels, batch_size), steps)


def _bare_loader(loader: DataLoader, steps: int) -> float:
    return bare(iter(loader), steps)


def template(batches: DataLoader, steps: int) -> float:
    """Train as a template of Lightning and Hydra does; return the seconds of the epoch."""
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
        trainer.fit(Template(), batches)
    return clock.seconds


if __name__ == "__main__":
    print_table(rows())
