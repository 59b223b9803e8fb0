"""Learning-rate schedules, as factors of ``optimizer.lr``.

All but ``plateau`` depend on the optimiser step alone. So a run resumes its schedule from its step,
and a run that is made longer follows the longer schedule.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from convtrain.errors import TrainingError

MakeSchedule = Callable[..., LRSchedulerConfigType]


def _each_step(factor: Callable[..., float]) -> MakeSchedule:
    """Make a schedule: a linear rise, then ``factor(step, steps, epoch_steps, **settings)``.

    ``step`` and ``steps`` are counted after the rise.
    """

    def make(
        optimizer: Optimizer,
        total_steps: int,
        epoch_steps: int,
        *,
        warmup_epochs: float = 0.0,
        **settings: object,
    ) -> LRSchedulerConfigType:
        warmup = round(warmup_epochs * epoch_steps)

        def scale(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            return factor(step - warmup, total_steps - warmup, epoch_steps, **settings)

        return {"scheduler": LambdaLR(optimizer, scale), "interval": "step"}

    return make


@_each_step
def constant(step: int, steps: int, epoch_steps: int) -> float:
    return 1.0


@_each_step
def stepwise(step: int, steps: int, epoch_steps: int, *, step_epochs: float, gamma: float) -> float:
    return float(gamma ** math.floor(step / (step_epochs * epoch_steps)))


@_each_step
def cosine(step: int, steps: int, epoch_steps: int, *, final_fraction: float) -> float:
    """Half a cosine from 1 to ``final_fraction`` (Loshchilov and Hutter, 2017)."""
    done = min(step / max(steps, 1), 1.0)
    return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * done)) / 2


@_each_step
def onecycle(
    step: int,
    steps: int,
    epoch_steps: int,
    *,
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
    anneal_strategy: Literal["cos", "linear"],
) -> float:
    """Rise from 1 / div_factor to 1, then fall (Smith and Topin, 2017; as torch's OneCycleLR)."""
    top = pct_start * steps - 1
    if step <= top:
        start, end, done = 1 / div_factor, 1.0, step / top if top > 0 else 1.0
    else:
        start, end = 1.0, 1 / (div_factor * final_div_factor)
        done = min((step - top) / max(steps - 1 - top, 1), 1.0)
    if anneal_strategy == "linear":
        return start + (end - start) * done
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


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


def step_plateau(trainer: pl.Trainer, metrics: Mapping[str, float]) -> None:
    """Step the plateau schedule, if there is one; raise TrainingError if its metric is missing.

    Lightning would step it after the epoch's checkpoint, and never in a resumed epoch.
    """
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            value = metrics.get(str(config.monitor))
            if value is None:
                raise TrainingError(
                    f"scheduler.monitor={config.monitor}: there is no such metric, because "
                    f"nothing was validated; choose another scheduler"
                )
            config.scheduler.step(value)
