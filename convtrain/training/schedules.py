"""Learning-rate schedules, as factors of ``optimizer.lr``.

All but ``plateau`` and ``custom`` depend on the optimiser step alone. So a run resumes its schedule
from its step, and a run that is made longer follows the longer schedule.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from convtrain.config.groups.scheduler import CustomScheduler
from convtrain.config.metrics import mode_of, not_logged
from convtrain.config.torch_classes import is_plateau
from convtrain.errors import ConfigError, TrainingError

MakeSchedule = Callable[..., LRSchedulerConfigType]


def constant(
    optimizer: Optimizer, total_steps: int, epoch_steps: int, *, warmup_epochs: float
) -> LRSchedulerConfigType:
    return _each_step(optimizer, lambda step, steps: 1.0, total_steps, warmup_epochs * epoch_steps)


def stepwise(
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    step_epochs: float,
    gamma: float,
    warmup_epochs: float,
) -> LRSchedulerConfigType:
    def factor(step: int, steps: int) -> float:
        return float(gamma ** math.floor(step / (step_epochs * epoch_steps)))

    return _each_step(optimizer, factor, total_steps, warmup_epochs * epoch_steps)


def cosine(
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    final_fraction: float,
    warmup_epochs: float,
) -> LRSchedulerConfigType:
    """Half a cosine from 1 to ``final_fraction`` (Loshchilov and Hutter, 2017)."""

    def factor(step: int, steps: int) -> float:
        done = min(step / max(steps, 1), 1.0)
        return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * done)) / 2

    return _each_step(optimizer, factor, total_steps, warmup_epochs * epoch_steps)


def cosine_restarts(
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    t_0: float,
    t_mult: int,
    final_fraction: float,
    warmup_epochs: float,
) -> LRSchedulerConfigType:
    """Cycles of half a cosine, the first of ``t_0`` epochs (Loshchilov and Hutter, 2017)."""
    first = max(round(t_0 * epoch_steps), 1)

    def factor(step: int, steps: int) -> float:
        done, cycle = (step % first if t_mult == 1 else step), first
        while done >= cycle:
            done, cycle = done - cycle, cycle * t_mult
        return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * done / cycle)) / 2

    return _each_step(optimizer, factor, total_steps, warmup_epochs * epoch_steps)


def polynomial(
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    power: float,
    final_fraction: float,
    warmup_epochs: float,
) -> LRSchedulerConfigType:
    """Fall from 1 to ``final_fraction`` as ``(1 - t) ** power``, where t rises from 0 to 1."""

    def factor(step: int, steps: int) -> float:
        left = 1 - min(step / max(steps, 1), 1.0)
        return final_fraction + (1 - final_fraction) * left**power

    return _each_step(optimizer, factor, total_steps, warmup_epochs * epoch_steps)


def linear(
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    final_fraction: float,
    warmup_epochs: float,
) -> LRSchedulerConfigType:
    """Fall from 1 to ``final_fraction`` in equal steps."""
    return polynomial(
        optimizer,
        total_steps,
        epoch_steps,
        power=1.0,
        final_fraction=final_fraction,
        warmup_epochs=warmup_epochs,
    )


def exponential(
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    gamma: float,
    warmup_epochs: float,
) -> LRSchedulerConfigType:
    """Multiply the rate by ``gamma`` in the course of each epoch, a little at every step."""

    def factor(step: int, steps: int) -> float:
        return float(gamma ** (step / epoch_steps))

    return _each_step(optimizer, factor, total_steps, warmup_epochs * epoch_steps)


def onecycle(
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
    anneal_strategy: Literal["cos", "linear"],
) -> LRSchedulerConfigType:
    """Rise from 1 / div_factor to 1, then fall (Smith and Topin, 2017; as torch's OneCycleLR)."""
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)

    def factor(step: int, steps: int) -> float:
        top = pct_start * steps - 1
        if step <= top:
            start, end, done = first, 1.0, step / top if top > 0 else 1.0
        else:
            start, end, done = 1.0, last, min((step - top) / max(steps - 1 - top, 1), 1.0)
        if anneal_strategy == "linear":
            return start + (end - start) * done
        return end + (start - end) * (1 + math.cos(math.pi * done)) / 2

    return _each_step(optimizer, factor, total_steps)


def plateau(
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    monitor: str,
    mode: Literal["min", "max"],
    factor: float,
    patience: int,
) -> LRSchedulerConfigType:
    """Multiply the rate by ``factor`` when ``monitor`` has not improved for ``patience`` epochs."""
    scheduler = ReduceLROnPlateau(optimizer, mode, factor=factor, patience=patience)
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


def custom(
    chosen: CustomScheduler,
    make: Callable[..., LRScheduler],
    *,
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
) -> LRSchedulerConfigType:
    """Build a schedule of torch's or of one's own, which follows its own state.

    An argument ``total_steps`` that was not typed is the length of the training, in optimiser
    steps, or in epochs if the schedule is stepped after each of them.
    """
    steps = total_steps if chosen.interval == "step" else math.ceil(total_steps / epoch_steps)
    offered = chosen.offered(total_steps=steps)
    if is_plateau(chosen.builder):
        offered |= chosen.offered(mode=mode_of(chosen.monitored))
    made = make(optimizer, **offered)
    return {"scheduler": made, "interval": chosen.interval, "monitor": chosen.monitored}


def _each_step(
    optimizer: Optimizer,
    factor: Callable[[int, int], float],
    total_steps: int,
    warmup_steps: float = 0,
) -> LRSchedulerConfigType:
    """Rise linearly, then follow ``factor(step, steps)``, both counted after the warm-up."""
    warmup = round(warmup_steps)

    def scale(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return factor(step - warmup, total_steps - warmup)

    return {"scheduler": LambdaLR(optimizer, scale), "interval": "step"}


def check_length(trainer: pl.Trainer, total_steps: int) -> None:
    """Raise ConfigError if the training is longer than its OneCycleLR, as a resumed one may be.

    torch's class fails after the steps that it was made for, which are a part of its state.
    """
    for config in trainer.lr_scheduler_configs:
        scheduler, needed = config.scheduler, total_steps
        if config.interval == "epoch":
            needed = trainer.max_epochs or 0
        if isinstance(scheduler, OneCycleLR) and scheduler.total_steps < needed:
            raise ConfigError(
                f"scheduler.total_steps={scheduler.total_steps}: the training has {needed} "
                f"{config.interval}s, and OneCycleLR ends with its last; omit the key, or resume "
                f"with trainer.max_epochs as before; only a run of scheduler=onecycle can be made "
                f"longer"
            )


def step_plateau(trainer: pl.Trainer, metrics: Mapping[str, float]) -> None:
    """Step the plateau schedule, if there is one; raise TrainingError if its metric is missing.

    Lightning would step it after the epoch's checkpoint, and never in a resumed epoch.
    """
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            value = metrics.get(str(config.monitor))
            if value is None and "val/loss" in metrics:
                raise ConfigError(not_logged("scheduler.monitor", str(config.monitor), metrics))
            if value is None:
                raise TrainingError(
                    f"scheduler.monitor={config.monitor}: there is no such metric, because "
                    f"nothing was validated; choose another scheduler"
                )
            config.scheduler.step(value)
