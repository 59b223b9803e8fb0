"""The optimiser of a training: the class of ``torch.optim`` that the configuration names."""

from collections.abc import Callable, Iterable

from torch import nn, optim

from convtrain.config.groups.optimizer import Optimizer

MakeOptimizer = Callable[[Iterable[nn.Parameter]], optim.Optimizer]


def make_optimizer(
    chosen: Optimizer, parameters: Iterable[nn.Parameter], *, fused: bool = True
) -> optim.Optimizer:
    """Build the chosen optimiser.

    Args:
        chosen: the section of the configuration.
        fused: update all parameters in one kernel, where torch has one for them.
    """
    params = list(parameters)
    fits = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
    kernel = {"fused": True} if fused and fits and chosen.has_fused_kernel else {}
    built: optim.Optimizer = chosen.build(params=params, **kernel)
    return built
