"""The parameters of a model, by their columns in the record."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.optim import Optimizer

from convtrain.gradients.record.schedule import Plan, Sizes
from convtrain.training.norms import is_small


class Parameters:
    """All parameters of a model, in its own order; a tied one is there once.

    Args:
        model: it may come to have more; then a new list is due.
        plan: chooses by name.

    Attributes:
        names, tensors: of each column.
        chosen: whether the record has it.
        small: whether one fused kernel takes the gradients of all.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        named = dict(model.named_parameters())
        self.names, self.tensors = tuple(named), tuple(named.values())
        self.chosen = [plan.selects(name) for name in self.names]
        self.small = all(is_small(parameter) for parameter in self.tensors)
        self._layers = sum(not any(module.children()) for module in model.modules())
        self._column = {id(parameter): column for column, parameter in enumerate(self.tensors)}

    def sizes(self) -> Sizes:
        """Return what a forecast needs of those that train."""
        named = zip(self.names, self.tensors, self.chosen, strict=True)
        trained = {name: p.numel() for name, p, chosen in named if chosen and p.requires_grad}
        return Sizes(parameters=len(trained), layers=self._layers, values=trained)

    def with_gradient(self, optimizer: Optimizer) -> tuple[list[int], list[Tensor]]:
        """Return the columns of the optimiser's parameters that have a gradient, and these.

        Raises:
            KeyError: the model did not have one of them when this list was made.
        """
        columns, gradients = [], []
        for parameter in held_by(optimizer):
            if (gradient := parameter.grad) is not None:
                columns.append(self._column[id(parameter)])
                gradients.append(gradient)
        return columns, gradients


def held_by(optimizer: Optimizer) -> Iterator[Tensor]:
    """Yield an optimiser's parameters, group by group."""
    for group in optimizer.param_groups:
        yield from group["params"]
