"""Learning-rate schedules. All but ``plateau`` move at every optimiser step.

``none``, ``step`` and ``cosine`` are functions of the step alone, so that a resumed run needs to know
nothing but where it stands.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

MakeSchedule = Callable[[Optimizer, int, int], dict[str, Any] | None]
"""From the optimiser, the steps of the whole training and those of an epoch, to Lightning's form."""


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


def _with_warmup(
    factor: Callable[..., float], optimizer: Optimizer, total_steps: int, epoch_steps: int,
    *, warmup_epochs: float, **settings: float,
) -> dict[str, Any]:  # fmt: skip
    """Rise linearly for some epochs, then follow ``factor`` over the steps that remain."""
    warmup = round(warmup_epochs * epoch_steps)

    def scale(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return factor(step - warmup, total_steps - warmup, epoch_steps, **settings)

    return _each_step(LambdaLR(optimizer, scale))


def _onecycle(
    optimizer: Optimizer, total_steps: int, epoch_steps: int, **settings: Any
) -> dict[str, Any]:
    top = [group["lr"] for group in optimizer.param_groups]
    return _each_step(
        OneCycleLR(optimizer, top, total_steps=total_steps, cycle_momentum=False, **settings)
    )


def _plateau(
    optimizer: Optimizer, total_steps: int, epoch_steps: int, *, monitor: str, **settings: Any
) -> dict[str, Any]:
    scheduler = ReduceLROnPlateau(optimizer, **settings)
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


def _each_step(scheduler: LRScheduler) -> dict[str, Any]:
    return {"scheduler": scheduler, "interval": "step"}


SCHEDULES: dict[str, Callable[..., dict[str, Any]]] = {
    "none": partial(_with_warmup, constant),
    "step": partial(_with_warmup, stepwise),
    "cosine": partial(_with_warmup, cosine),
    "onecycle": _onecycle,
    "plateau": _plateau,
}


def make_schedule(name: str, **settings: Any) -> MakeSchedule:
    """Return a schedule by its name in ``configs/scheduler``."""
    return partial(SCHEDULES[name], **settings)
