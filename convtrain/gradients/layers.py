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
    layers = [layer_of(name) for name in parameters]
    names = tuple(dict.fromkeys(layers))
    columns = np.array([names.index(layer) for layer in layers], int)
    order = np.argsort(columns, kind="stable")
    starts = np.searchsorted(columns[order], np.arange(len(names)))
    squares = np.square(np.where(present, norms, 0)[:, order], dtype=np.float64)
    any_present = np.logical_or.reduceat(present[:, order], starts, axis=1)
    values = np.sqrt(np.add.reduceat(squares, starts, axis=1))
    return names, np.where(any_present, values, np.nan), any_present
