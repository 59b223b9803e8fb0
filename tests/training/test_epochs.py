"""An epoch has the optimiser steps that it has, whatever else limits a training."""

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)

from tests.training.test_steps import run

# Five batches, the last of which is smaller.
DATA = ("data.limit=136", "data.batch_size=32", "optimizer=sgd", "optimizer.lr=0.01")
EPOCHS, RATE = 3, 0.01
LIMITS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "accumulation": {"accumulate_grad_batches": 2},
    "batches": {"limit_train_batches": 3},
    "a part of the batches": {"limit_train_batches": 0.5},
    "validation within the epoch": {"val_check_interval": 0.25},
    "accumulation and batches": {"limit_train_batches": 4, "accumulate_grad_batches": 3},
}


def torchs(make: Callable[[SGD], LRScheduler], steps: int, warm_up: int = 0) -> list[float]:
    """Return the rates of a schedule of torch's, behind a linear rise."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = make(optimizer)
    rates = [RATE * (step + 1) / (warm_up + 1) for step in range(warm_up)]
    while len(rates) < steps:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates[:steps]


# Of each the settings, and torch's rates for so many steps in the training and in an epoch.
SCHEDULES: dict[str, tuple[list[str], Callable[[int, int], list[float]]]] = {
    "step, warm-up": (
        ["step", "step_epochs=1", "gamma=0.5", "warmup_epochs=1"],
        lambda total, epoch: torchs(lambda opt: StepLR(opt, epoch, gamma=0.5), total, epoch),
    ),
    "step": (
        ["step", "step_epochs=1", "gamma=0.5"],
        lambda total, epoch: torchs(lambda opt: StepLR(opt, epoch, gamma=0.5), total),
    ),
    "warm-up alone": (
        ["none", "warmup_epochs=2"],
        lambda total, epoch: torchs(lambda opt: ConstantLR(opt, 1.0), total, 2 * epoch),
    ),
    "cosine, warm-up": (
        ["cosine", "warmup_epochs=0.5"],
        lambda total, epoch: torchs(
            lambda opt: CosineAnnealingLR(opt, total - round(epoch / 2)), total, round(epoch / 2)
        ),
    ),
    "onecycle": (
        ["onecycle"],
        lambda total, epoch: torchs(
            lambda opt: OneCycleLR(opt, RATE, total, cycle_momentum=False), total
        ),
    ),
}


@cache
def steps_seen(limit: str) -> int:
    """Count the optimiser steps of one whole epoch."""
    recorder, _ = run(*DATA, "scheduler=none", max_epochs=1, **LIMITS[limit])
    return len(recorder.rates)


QUICK = {(name, "nothing", 5) for name in SCHEDULES} | {("step", name, 5) for name in LIMITS}
CASES = [
    pytest.param(
        *case, id="-".join(map(str, case)), marks=[] if case in QUICK else pytest.mark.slow
    )
    for case in itertools.product(SCHEDULES, LIMITS, (-1, 5))
]


@pytest.mark.parametrize(("schedule", "limit", "max_steps"), CASES)
def test_a_schedule_counts_in_epochs_as_they_are(schedule: str, limit: str, max_steps: int) -> None:
    (name, *keys), expected = SCHEDULES[schedule]
    chosen = (f"scheduler={name}", *(f"scheduler.{key}" for key in keys))
    recorder, _ = run(*DATA, *chosen, max_epochs=EPOCHS, max_steps=max_steps, **LIMITS[limit])
    epoch = steps_seen(limit)
    total = EPOCHS * epoch if max_steps == -1 else min(EPOCHS * epoch, max_steps)
    assert recorder.rates == pytest.approx(expected(total, epoch))
