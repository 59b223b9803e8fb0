"""A callback that reports the first step to another process, and ends the run."""

import os
from typing import Any

import pytorch_lightning as pl


class Notice(pl.Callback):
    """Writes a byte into a pipe after the first optimiser step, and exits at once."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        os.write(self.pipe, b"1")
        os._exit(0)
