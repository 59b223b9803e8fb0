"""Find convolution filters whose gradient is exactly zero, step after step."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convtrain.training.norms import is_plain
from convtrain.training.sharding import gathered

SCAN_EVERY_N_STEPS = 50  # recorded steps between two scans of all filters


class ZeroFilters:
    """Finds the filters whose gradient is exactly zero at every step between two flushes.

    Testing every filter at every step would cost as much as the norms. Instead every 50th recorded
    step scans all filters, and from the next flush on, every recorded step tests those that were
    zero. A filter may have been zero for longer than it is followed.

    Only :meth:`flush` waits for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._rows = device, 0
        self._zero: dict[str, Tensor] = {}  # bool (filters,), at the last scan
        self._followed: dict[str, tuple[Tensor, Tensor]] = {}  # indices, and whether still zero
        self._sizes: dict[str, int] = {}

    def look(self, names: Iterable[str], gradients: Iterable[Tensor]) -> None:
        scan = self._rows % SCAN_EVERY_N_STEPS == 0
        self._rows += 1
        if not (scan or self._followed):
            return
        for name, gradient in zip(names, gradients, strict=True):
            if gradient.ndim != 4 or gradient.is_sparse:
                continue
            if scan:
                self._zero[name] = zero_filters(gradient)
            if name in self._followed:
                numbers, still_zero = self._followed[name]
                if is_plain(gradient):
                    still_zero &= zero_filters(gradient.index_select(0, numbers))
                else:
                    still_zero &= zero_filters(gradient).index_select(0, numbers)

    def flush(self) -> dict[str, np.ndarray]:
        """Return, by convolution, bool (filters,): zero at every step since the last flush."""
        found = {name: np.zeros(size, bool) for name, size in self._sizes.items()}
        followed = {name: numbers[still] for name, (numbers, still) in self._followed.items()}
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

    def state_dict(self) -> dict[str, object]:
        followed = {name: numbers.tolist() for name, (numbers, _) in self._followed.items()}
        return {"rows": self._rows, "sizes": dict(self._sizes), "followed": followed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows, self._sizes = state["rows"], dict(state["sizes"])
        filters = state["followed"].items()
        self._follow(
            {name: torch.tensor(numbers, device=self._device) for name, numbers in filters}
        )


def zero_filters(gradient: Tensor) -> Tensor:
    """Return which of a convolution's filters have a gradient of exact zeros: bool (filters,)."""
    return gathered(gradient.detach().abs().amax((1, 2, 3))) == 0
