"""The layer of a parameter, as the recorder, the diagnosis and all reports define it."""

from collections.abc import Sequence

import numpy as np


def layer_of(parameter: str) -> str:
    """Return the module that owns a parameter; for a parametrization, the parametrized module."""
    owner, parametrized, _ = parameter.partition(".parametrizations.")
    return owner if parametrized else parameter.rpartition(".")[0] or parameter


def layer_norms(
    parameters: Sequence[str], norms: np.ndarray, present: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return each layer's gradient norm: the root of the sum of squares over its parameters.

    Args:
        norms, present: float and bool (S, P), one row for each step.

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
