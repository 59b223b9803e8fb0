"""Learning-rate schedules: factors of ``optimizer.lr``.

All but ``plateau`` are functions of the optimiser step alone, so that a resumed run needs to know
nothing but where it stands, and one that is made longer follows the longer schedule from there.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from convtrain.config.metrics import mode_of

MakeSchedule = Callable[[Optimizer, int, int], dict[str, Any] | None]
"""From the optimiser, the steps of the training and of an epoch, to Lightning's form."""


def constant(step: int, total_steps: int, epoch_steps: int) -> float:
    return 1.0


def stepwise(
    step: int, total_steps: int, epoch_steps: int, *, step_epochs: float, gamma: float
) -> float:
    return float(gamma ** math.floor(step / (step_epochs * epoch_steps)))


def cosine(step: int, total_steps: int, epoch_steps: int, *, final_fraction: float) -> float:
    """Half a cosine from 1 to ``final_fraction`` (Loshchilov and Hutter, 2017)."""
    done = min(step / max(total_steps, 1), 1.0)
    return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * done)) / 2


def onecycle(
    step: int,
    total_steps: int,
    epoch_steps: int,
    *,
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
    anneal_strategy: str,
) -> float:
    """Rise from 1 / div_factor to 1, then fall (Smith and Topin, 2017; as torch's OneCycleLR)."""
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)
    top = pct_start * total_steps - 1
    if step <= top:
        start, end, done = first, 1.0, step / top if top > 0 else 1.0
    else:
        start, end, done = 1.0, last, min((step - top) / max(total_steps - 1 - top, 1), 1.0)
    if anneal_strategy == "linear":
        return start + (end - start) * done
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _each_step(
    factor: Callable[..., float],
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    warmup_epochs: float = 0.0,
    **settings: Any,
) -> dict[str, Any]:
    """Rise linearly for some epochs, then follow ``factor`` over the steps that remain."""
    warmup = round(warmup_epochs * epoch_steps)

    def scale(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return factor(step - warmup, total_steps - warmup, epoch_steps, **settings)

    return {"scheduler": LambdaLR(optimizer, scale), "interval": "step"}


def _plateau(
    optimizer: Optimizer,
    total_steps: int,
    epoch_steps: int,
    *,
    monitor: str,
    mode: str = "auto",
    **settings: Any,
) -> dict[str, Any]:
    scheduler = ReduceLROnPlateau(optimizer, mode_of(monitor), **settings)
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


SCHEDULES: dict[str, Callable[..., dict[str, Any]]] = {
    "none": partial(_each_step, constant),
    "step": partial(_each_step, stepwise),
    "cosine": partial(_each_step, cosine),
    "onecycle": partial(_each_step, onecycle),
    "plateau": _plateau,
}


def make_schedule(name: str, **settings: Any) -> MakeSchedule:
    """Return a schedule by its name in ``configs/scheduler``."""
    return partial(SCHEDULES[name], **settings)
