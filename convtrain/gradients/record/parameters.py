"""A model's parameters as columns of the record."""

from collections.abc import Callable, Iterator

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer

from convtrain.gradients.record.schedule import Plan
from convtrain.training.norms import is_small
from convtrain.training.parts import Parts, named_parameters


class Parameters:
    """The parameters that are trained, in their modules' order; a tied one is listed once.

    It calls ``before_change`` before its columns change because there is a new parameter.
    ``small`` tells that one fused kernel takes all gradients.
    """

    def __init__(self, parts: Parts, plan: Plan, before_change: Callable[[], None]) -> None:
        self._parts, self._plan, self._before_change = parts, plan, before_change
        self._list_columns()

    def _list_columns(self) -> None:
        named = {n: p for n, p in named_parameters(self._parts) if p.requires_grad}
        self.names, self.tensors = tuple(named), tuple(named.values())
        self.chosen = [self._plan.selects(name) for name in self.names]
        self.small = all(is_small(parameter) for parameter in self.tensors)
        self._column = {id(parameter): column for column, parameter in enumerate(self.tensors)}

    def with_gradient(self, optimizer: Optimizer) -> tuple[list[int], list[Tensor]]:
        """Return the columns and gradients of the optimiser's parameters that have a gradient."""
        parameters = [p for p in parameters_of(optimizer) if p.grad is not None]
        try:
            columns = [self._column[id(parameter)] for parameter in parameters]
        except KeyError:  # there is a new parameter
            self._before_change()
            self._list_columns()
            columns = [self._column[id(parameter)] for parameter in parameters]
        return columns, [p.grad for p in parameters]  # type: ignore[misc]


def parameters_of(optimizer: Optimizer) -> Iterator[Tensor]:
    """Yield an optimiser's parameters, group by group."""
    for group in optimizer.param_groups:
        yield from group["params"]


def without_optimizer(trainer: pl.Trainer, parts: Parts) -> list[str]:
    """Return the names of trainable parameters that belong to no optimiser."""
    owned = {id(p) for optimizer in trainer.optimizers for p in parameters_of(optimizer)}
    named = named_parameters(parts)
    return [name for name, p in named if p.requires_grad and id(p) not in owned]
