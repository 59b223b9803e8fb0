"""Log entries: every few steps, and at the end of each epoch, validation and test."""

import time
from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import Metric

from convtrain.training.chosen_metrics import ChosenMetrics
from convtrain.training.running_metrics import RunningMetrics, means


class LogEntries:
    """Logs loss, accuracy, learning rate and speed to all loggers."""

    def __init__(
        self,
        every_n_steps: int,
        *,
        multi_label: bool = False,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.chosen = ChosenMetrics(metrics or {}, multi_label=multi_label)
        self.arrays: dict[str, object] = {}  # the newest metrics that are no single numbers
        stages = ("fit", "val", "test")
        self.running = {stage: RunningMetrics(multi_label=multi_label) for stage in stages}
        self.newest: dict[str, float] = {}
        self._offered: dict[str, Tensor] = {}  # that a callback has logged by a logger alone
        self.logged_step = 0  # optimiser step of the newest training entry
        self.images = self.seconds = 0.0  # trained on so far, without the time of validation
        self.validation_seconds = 0.0
        self._interval_began = self._paused_at = time.perf_counter()

    def start_clock(self) -> None:
        self._interval_began = time.perf_counter()

    def pause_clock(self) -> None:
        self._paused_at = time.perf_counter()

    def continue_clock(self) -> None:
        passed = time.perf_counter() - self._paused_at
        self._interval_began += passed
        self.validation_seconds += passed

    def is_due(self, step: int) -> bool:
        return step != self.logged_step and step % self.every_n_steps == 0

    def log_interval(self, trainer: pl.Trainer) -> float:
        """Log the metrics of training since the last entry; return the mean loss."""
        sums = sum_over_devices(trainer, self.running["fit"].since_mark())
        loss, accuracy = means(sums)
        images, seconds = float(sums[2]), time.perf_counter() - self._interval_began
        self.images += images
        self.seconds += seconds
        values = {
            "train/loss": loss,
            "train/acc": accuracy,
            **learning_rates(trainer.optimizers[0]),
            "images_per_second": images / seconds,
        }
        self._log(trainer, values)
        self.logged_step = trainer.global_step
        self.start_clock()
        return loss

    def add_evaluated(self, stage: str, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch of the validation or the test."""
        self.running[stage].add(loss, logits, targets)
        self.chosen.add(logits, targets)

    def log_epoch(self, module: pl.LightningModule, stage: str, name: str, epoch: int) -> None:
        """Log an epoch's metrics and reset them; ``name`` is a format such as ``val/{}``."""
        running = self.running[stage]
        loss, accuracy = means(sum_over_devices(module.trainer, running.sums))
        running.reset()
        values = {name.format("loss"): loss, name.format("acc"): accuracy}
        if stage != "fit":
            numbers, arrays = self.chosen.compute()
            values |= {name.format(key): number for key, number in numbers.items()}
            self.arrays |= {name.format(key): value for key, value in arrays.items()}
        offer_to_callbacks(module, values)
        self._log(module.trainer, {**values, "epoch": float(epoch)})

    def offer_validation(self, module: pl.LightningModule) -> None:
        """Let callbacks monitor the last validation, even one before a resume."""
        known = module.trainer.callback_metrics
        stale = {k for k, value in self._offered.items() if torch.equal(known.get(k, value), value)}
        values = {
            name: number
            for name, number in self.newest.items()
            if name.startswith("val/") and (name not in known or name in stale)
        }
        offer_to_callbacks(module, values)
        known = module.trainer.callback_metrics
        self._offered = {name: known[name].clone() for name in values if name in known}

    def _log(self, trainer: pl.Trainer, values: dict[str, float]) -> None:
        if trainer.sanity_checking:
            return
        self.newest.update(values)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """Return the rate of the first group, ``lr``, and of groups with a name, ``lr/NAME``."""
    first, *others = optimizer.param_groups
    rates = {f"lr/{group['name']}": group["lr"] for group in others if "name" in group}
    return {"lr": first["lr"], **rates}


def offer_to_callbacks(module: pl.LightningModule, values: dict[str, float]) -> None:
    """Let callbacks monitor values that are already the same on every device."""
    module.log_dict(values, logger=False, sync_dist=True, batch_size=1)


def sum_over_devices(trainer: pl.Trainer, sums: Tensor) -> Tensor:
    """Return the sum over all devices; every device must call."""
    if trainer.world_size == 1:
        return sums
    on_device = sums.to(trainer.strategy.root_device, copy=True)
    total: Tensor = trainer.strategy.reduce(on_device, reduce_op="sum")
    return total
