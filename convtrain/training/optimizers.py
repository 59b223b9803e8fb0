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


FUSED = ("sgd", "adam", "adamw")


def make_optimizer(name: str, *, fused: bool = True, **settings: Any) -> MakeOptimizer:
    """Return a function from parameters to the optimiser named in ``configs/optimizer``.

    Args:
        fused: update all parameters in one kernel, where torch has one for them.
        settings: those of the class in ``torch.optim``.
    """
    if not (fused and name in FUSED):
        return partial(OPTIMIZERS[name], **settings)
    return partial(_make_fused, OPTIMIZERS[name], settings)


def _make_fused(
    kind: type[optim.Optimizer], settings: dict[str, Any], parameters: Iterable[nn.Parameter]
) -> optim.Optimizer:
    held = list(parameters)
    fits = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in held)
    return kind(held, **(settings | {"fused": True} if fits else settings))
