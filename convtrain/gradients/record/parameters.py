"""A model's parameters as columns of the record."""

from collections.abc import Callable, Iterator

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer

from convtrain.gradients.record.schedule import Plan
from convtrain.training.norms import is_small


class Parameters:
    """All parameters of a model, in its own order; a tied one is listed once.

    It calls ``before_change`` before its columns change because the model has a new parameter.
    ``small`` tells that one fused kernel takes all gradients.
    """

    def __init__(self, model: nn.Module, plan: Plan, before_change: Callable[[], None]) -> None:
        self._model, self._plan, self._before_change = model, plan, before_change
        self._list_columns()

    def _list_columns(self) -> None:
        named = dict(self._model.named_parameters())
        self.names, self.tensors = tuple(named), tuple(named.values())
        self.chosen = [self._plan.selects(name) for name in self.names]
        self.small = all(is_small(parameter) for parameter in self.tensors)
        self._column = {id(parameter): column for column, parameter in enumerate(self.tensors)}

    def with_gradient(self, optimizer: Optimizer) -> tuple[list[int], list[Tensor]]:
        """Return the columns and gradients of the optimiser's parameters that have a gradient."""
        parameters = [p for p in parameters_of(optimizer) if p.grad is not None]
        try:
            columns = [self._column[id(parameter)] for parameter in parameters]
        except KeyError:  # the model has a new parameter
            self._before_change()
            self._list_columns()
            columns = [self._column[id(parameter)] for parameter in parameters]
        return columns, [p.grad for p in parameters]  # type: ignore[misc]


def parameters_of(optimizer: Optimizer) -> Iterator[Tensor]:
    """Yield an optimiser's parameters, group by group."""
    for group in optimizer.param_groups:
        yield from group["params"]


def without_optimizer(trainer: pl.Trainer, model: nn.Module) -> list[str]:
    """Return the names of trainable parameters that belong to no optimiser."""
    owned = {id(p) for optimizer in trainer.optimizers for p in parameters_of(optimizer)}
    named = model.named_parameters()
    return [name for name, p in named if p.requires_grad and id(p) not in owned]
