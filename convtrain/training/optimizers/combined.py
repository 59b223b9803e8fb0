"""Several optimisers of different parameters that act as one."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from itertools import chain

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import StateDict

REST = "rest"  # key of the state dict for what single optimisers keep beside state and groups


class CombinedOptimizer(Optimizer):
    """Steps several optimisers, each with parameters of its own.

    What uses it (Lightning, a schedule, a scaler, clipping, the gradient record) sees one
    optimiser, because:

    - ``param_groups`` lists the optimisers' own dictionaries, those of the first optimiser first: a
      schedule that sets ``lr`` here has set it there.
    - ``state`` is a view of the optimisers' states, by parameter.
    - ``defaults`` are those of the first optimiser.
    - ``step`` calls the closure once, before the first optimiser steps. Step hooks that are
      registered here run once a step; those of the optimisers run as well.
    - ``state_dict`` has the form of a single optimiser's: the parameters are counted in the order
      of ``param_groups``. ``load_state_dict`` gives each optimiser its part.

    No optimiser may need a closure, because it could not change the other weights again.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        super().__init__([dict(group) for each in optimizers for group in each.param_groups], {})
        self.optimizers, self.defaults = tuple(optimizers), optimizers[0].defaults
        self.state = _State(self.optimizers)  # type: ignore[assignment]
        self._list_groups()

    def _list_groups(self) -> None:
        self.param_groups = [group for each in self.optimizers for group in each.param_groups]

    def add_param_group(self, param_group: StateDict) -> None:
        """Give the first optimiser another group."""
        super().add_param_group(param_group)  # checks that no parameter is in two groups
        if hasattr(self, "optimizers"):  # torch's __init__ calls this method as well
            self.optimizers[0].add_param_group(param_group)
            self._list_groups()

    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for each in self.optimizers:
            each.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for each in self.optimizers:
            each.zero_grad(set_to_none)

    def state_dict(self) -> StateDict:
        state: dict[int, object] = {}
        groups: list[StateDict] = []
        rests: list[StateDict] = []
        for each in self.optimizers:
            own, start = each.state_dict(), sum(len(group["params"]) for group in groups)
            own_state, own_groups = own.pop("state"), own.pop("param_groups")
            state |= {start + index: value for index, value in own_state.items()}
            groups += [_counted_from(start, group) for group in own_groups]
            rests.append(own)
        rest = {REST: rests} if any(rests) else {}
        return {"state": state, "param_groups": groups, **rest}

    def load_state_dict(self, state_dict: StateDict) -> None:
        groups, state = list(state_dict["param_groups"]), state_dict["state"]
        sizes = [len(group["params"]) for group in groups]
        if sizes != [len(group["params"]) for group in self.param_groups]:
            raise ValueError("loaded state dict has other parameter groups")
        rests, start = state_dict.get(REST) or [{} for _ in self.optimizers], 0
        for each, rest in zip(self.optimizers, rests, strict=True):
            count = len(each.param_groups)
            own, groups = groups[:count], groups[count:]
            end = start + sum(len(group["params"]) for group in own)
            part = {index - start: v for index, v in state.items() if start <= index < end}
            own = [_counted_from(-start, group) for group in own]
            each.load_state_dict({"state": part, "param_groups": own, **rest})
            start = end
        self._list_groups()


class _State(MutableMapping[Tensor, StateDict]):
    """The states of several optimisers as one mapping, by parameter."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers

    def _of(self, parameter: Tensor) -> MutableMapping[Tensor, StateDict]:
        for each in self._optimizers:
            if any(p is parameter for group in each.param_groups for p in group["params"]):
                return each.state
        raise KeyError(parameter)

    def __getitem__(self, parameter: Tensor) -> StateDict:
        return self._of(parameter)[parameter]

    def __setitem__(self, parameter: Tensor, value: StateDict) -> None:
        self._of(parameter)[parameter] = value

    def __delitem__(self, parameter: Tensor) -> None:
        del self._of(parameter)[parameter]

    def __iter__(self) -> Iterator[Tensor]:
        return chain.from_iterable(each.state for each in self._optimizers)

    def __len__(self) -> int:
        return sum(len(each.state) for each in self._optimizers)


def _counted_from(start: int, group: StateDict) -> StateDict:
    return {**group, "params": [start + index for index in group["params"]]}
