"""Time a pass of validation: ``python -m benchmarks.evaluation``.

Ours is ``Trainer.validate`` with loss and accuracy over the whole split. Its peer is a bare loop
over one tensor in memory, without gradients, which sums the same two numbers in batches of the same
size.
"""

import contextlib
import io
import time

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.paired import Result, compare_all, print_table
from benchmarks.setting import MEAN, STD, bare_network, configure, made_up, quiet
from convtrain import assembly
from convtrain.data.augment import Augmentation
from convtrain.data.batches import Normalisation
from convtrain.data.images import Images, Splits
from convtrain.data.module import ImageData

IMAGES, GOAL = 20_000, 1.05


def rows(rounds: int = 9) -> list[Result]:
    quiet()
    images = Images(*made_up(IMAGES))
    config = configure()
    batch_size = config.data.eval_batch_size
    data = ImageData(
        Splits(images, images, images),
        normalise=Normalisation([MEAN], [STD]),
        augmentation=Augmentation(),
        batch_size=64,
        eval_batch_size=batch_size,
        seed=1,
    )
    task = assembly.make_task(config, assembly.make_model(config))
    clock = EvaluationClock()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[clock],
    )  # fmt: skip

    def ours() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.validate(task, datamodule=data, verbose=False)
        return clock.seconds

    floats = images.pixels.float().div_(255).sub_(MEAN).div_(STD)
    ways = {"ours": ours, "bare": lambda: bare(floats, images.labels, batch_size)}
    ratio = compare_all(ways, against="bare", rounds=rounds)["ours"]
    return [Result(f"validation of {IMAGES:,} images: ours / bare", ratio, "s", GOAL)]


class EvaluationClock(pl.Callback):
    """Times a validation from its first batch to its metrics."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self._start


def bare(images: Tensor, labels: Tensor, batch_size: int) -> float:
    model = bare_network().eval()
    start, loss, correct = time.perf_counter(), 0.0, 0
    with torch.no_grad():
        for some, targets in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            scores = model(some)
            loss += F.cross_entropy(scores, targets).item() * len(targets)
            correct += int((scores.argmax(1) == targets).sum())
    return time.perf_counter() - start


if __name__ == "__main__":
    print_table(rows())
