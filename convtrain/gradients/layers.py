"""What a layer is in a gradient record: the module that owns a parameter.

The recorder, the diagnosis, the report and the comparison of runs all use this definition.
"""

from collections.abc import Sequence

import numpy as np


def layer_of(parameter: str) -> str:
    """Return the layer that owns a parameter: ``stem`` for ``stem.weight``.

    The parameters of a parametrization belong to the layer that is parametrized.
    """
    owner, parametrized, _ = parameter.partition(".parametrizations.")
    return owner if parametrized else parameter.rpartition(".")[0] or parameter


def layer_norms(
    parameters: Sequence[str], norms: np.ndarray, present: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return the gradient norms of layers: the root of the sum of squares over its parameters.

    Args:
        parameters: names (P).
        norms: float (S, P), one row for each step.
        present: bool (S, P), whether the parameter had a gradient.

    Returns:
        the layers' names (L), in the order of their first parameters; float64 (S, L), NaN where
        none of a layer's parameters had a gradient; bool (S, L), whether any had one.
    """
    columns: dict[str, list[int]] = {}
    for column, name in enumerate(parameters):
        columns.setdefault(layer_of(name), []).append(column)
    shape = len(norms), len(columns)
    values, any_present = np.full(shape, np.nan), np.zeros(shape, bool)
    for layer, group in enumerate(columns.values()):
        any_present[:, layer] = there = present[:, group].any(1)
        known = np.where(present[:, group], norms[:, group], 0).astype(np.float64)
        values[there, layer] = np.sqrt(np.square(known[there]).sum(1))
    return tuple(columns), values, any_present
