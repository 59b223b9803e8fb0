"""Optimisers by name; the settings are those of ``torch.optim``."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn, optim

MakeOptimizer = Callable[[Iterable[nn.Parameter]], optim.Optimizer]

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    "sgd": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "rmsprop": optim.RMSprop,
}


def make_optimizer(name: str, **settings: Any) -> MakeOptimizer:
    """Return a function from parameters to the optimiser named in ``configs/optimizer``."""
    return partial(OPTIMIZERS[name], **settings)
