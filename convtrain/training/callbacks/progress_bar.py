"""A progress bar for the whole training; without a terminal, a line for each epoch."""

import time
from collections.abc import Mapping

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convtrain.text import make_console
from convtrain.training.epochs import training_steps
from convtrain.training.task import Task

SECONDS_BETWEEN_UPDATES = 0.25  # an update of the bar takes a millisecond


class Stoppable(pl.Callback):
    """Has a bar on a terminal, which ends with what it shows, or with an exception."""

    _bar: Progress | None = None

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class RunProgress(Stoppable, ProgressBar):
    """Shows the newest log entry: loss, accuracy and images per second."""

    def __init__(self) -> None:
        super().__init__()
        self._console = make_console(stderr=True)
        self._enabled = True
        self._shown, self._drawn = -1, 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._enabled = self._enabled and trainer.is_global_zero
        if not (self._enabled and self._console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        total = training_steps(trainer)
        self._row = self._bar.add_task("", total=total, epoch="", metrics="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
    ) -> None:
        assert isinstance(pl_module, Task)
        if self._bar is None or pl_module.entries.logged_step == self._shown:
            return
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_UPDATES:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, task: Task) -> None:
        assert self._bar is not None
        self._shown = task.entries.logged_step
        self._bar.update(
            self._row,
            completed=trainer.global_step,
            epoch=f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            metrics=_shown(task.entries.newest),
        )
        self._bar.refresh()
        self._drawn = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        if self._bar is not None:
            self._draw(trainer, pl_module)
        elif self._enabled:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._console.print(f"{epoch}  {_shown(pl_module.entries.newest)}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()


class EvaluationProgress(Stoppable):
    """Shows the batches of a test that are done, on a terminal."""

    def __init__(self) -> None:
        self._console = make_console(stderr=True)
        self._drawn = 0.0

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._console.is_terminal and trainer.is_global_zero:
            columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(
                *columns, console=self._console, auto_refresh=False, transient=True
            )
            self._row = self._bar.add_task("", total=sum(trainer.num_test_batches))
            self._bar.start()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._bar is not None and time.monotonic() - self._drawn > SECONDS_BETWEEN_UPDATES:
            self._bar.update(self._row, completed=batch_idx + 1)
            self._bar.refresh()
            self._drawn = time.monotonic()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()


def _shown(metrics: Mapping[str, float]) -> str:
    wanted = (
        ("train/loss", "loss {:.4f}"),
        ("train/acc", "acc {:.2%}"),
        ("val/acc", "val acc {:.2%}"),
        ("images_per_second", "{:,.0f} img/s"),
    )
    return "  ".join(text.format(metrics[key]) for key, text in wanted if key in metrics)
