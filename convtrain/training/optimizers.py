"""Build the optimiser of ``torch.optim`` that the configuration names."""

from collections.abc import Callable, Iterable

from torch import nn, optim

from convtrain.config.groups.optimizer import Optimizer

MakeOptimizer = Callable[[Iterable[nn.Parameter]], optim.Optimizer]


def make_optimizer(
    chosen: Optimizer, parameters: Iterable[nn.Parameter], *, fused: bool = True
) -> optim.Optimizer:
    """Build the chosen optimiser; ``fused`` updates all parameters in one kernel if torch can."""
    params = list(parameters)
    fits = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
    kernel = {"fused": True} if fused and fits and chosen.has_fused_kernel else {}
    built: optim.Optimizer = chosen.build(params=params, **kernel)
    return built
