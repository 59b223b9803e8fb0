"""Which filters of a convolution have a gradient of exact zeros, step after step."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convtrain.gradients.record.statistics import zero_filters
from convtrain.training.norms import is_plain

LOOK_EVERY = 50  # recorded steps between two looks at all filters


class ZeroFilters:
    """Finds the filters whose gradient is exactly zero at every step between two flushes.

    To look at every filter at every step would cost as much as the norms. So every 50th recorded
    step looks at all filters, and those that are zero there are followed from the next flush on,
    at every recorded step. A filter may have been zero for longer than it is followed.

    Only :meth:`flush` waits for the device.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._zero: dict[str, Tensor] = {}  # bool (filters,), at the last look at all
        self._followed: dict[str, tuple[Tensor, Tensor]] = {}  # their numbers, and if zero so far
        self._sizes: dict[str, int] = {}

    def look(self, names: Iterable[str], gradients: Iterable[Tensor]) -> None:
        """Look at the gradients of a recorded step."""
        at_all = self._rows % LOOK_EVERY == 0
        self._rows += 1
        if not (at_all or self._followed):
            return
        for name, gradient in zip(names, gradients, strict=True):
            if gradient.ndim != 4 or gradient.is_sparse:
                continue
            if at_all:
                self._zero[name] = zero_filters(gradient)
            if name in self._followed:
                numbers, so_far = self._followed[name]
                if is_plain(gradient):
                    so_far &= zero_filters(gradient.index_select(0, numbers))
                else:
                    so_far &= zero_filters(gradient).index_select(0, numbers)

    def flush(self) -> dict[str, np.ndarray]:
        """Return, by convolution, bool (filters,): zero at every step since the last flush."""
        found = {name: np.zeros(size, bool) for name, size in self._sizes.items()}
        followed = {name: numbers[so_far] for name, (numbers, so_far) in self._followed.items()}
        for name, numbers in followed.items():
            found[name][numbers.cpu()] = True
        for name, zero in self._zero.items():
            self._sizes[name] = len(zero)
            zero[followed.get(name, [])] = True
            followed[name] = zero.nonzero().flatten()
        self._zero = {}
        self._follow(followed)
        return found

    def _follow(self, filters: dict[str, Tensor]) -> None:
        self._followed = {
            name: (numbers, torch.ones_like(numbers, dtype=torch.bool))
            for name, numbers in filters.items()
            if len(numbers)
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what is to be known after a flush, as dicts, lists, strings and numbers."""
        followed = {name: numbers.tolist() for name, (numbers, _) in self._followed.items()}
        return {"rows": self._rows, "sizes": dict(self._sizes), "followed": followed}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._rows, self._sizes = state["rows"], dict(state["sizes"])
        filters = state["followed"].items()
        self._follow({name: torch.tensor(numbers, device=device) for name, numbers in filters})
