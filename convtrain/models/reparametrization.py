"""Weights that are computed from others: parametrizations and pruning, declared by name pattern.

``parametrize: {"conv*.weight": weight_norm}`` and
``prune: {"*.weight": {l1_unstructured: {amount: 0.3}}}`` in a network's YAML use
``torch.nn.utils.parametrizations`` and ``torch.nn.utils.prune``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.utils import parametrizations, prune

from convtrain.errors import NetworkError, did_you_mean, first_line
from convtrain.text import matches

PARAMETRIZATIONS: dict[str, Callable[..., Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}
PRUNING: dict[str, Callable[..., Any]] = {
    "l1_unstructured": prune.l1_unstructured,
    "random_unstructured": prune.random_unstructured,
    "ln_structured": prune.ln_structured,
    "random_structured": prune.random_structured,
}


def parametrize_weights(module: nn.Module, declared: Mapping[str, Any]) -> None:
    """Parametrize the parameters whose names match, in place.

    Args:
        module: whose layers are changed.
        declared: pattern of parameter names to ``weight_norm``, ``spectral_norm`` or
            ``orthogonal``, or to one of these with its arguments.

    Raises:
        NetworkError: an unknown name, arguments it refuses, or a pattern without a match.
    """
    _apply(module, declared, PARAMETRIZATIONS, "network.parametrize")


def prune_weights(module: nn.Module, declared: Mapping[str, Any]) -> None:
    """Mask the parameters whose names match, in place; what is masked stays zero in training.

    Args:
        module: whose layers are changed.
        declared: pattern of parameter names to a function of ``torch.nn.utils.prune`` with its
            arguments, such as ``{"l1_unstructured": {"amount": 0.3}}``.

    Raises:
        NetworkError: an unknown name, arguments it refuses, or a pattern without a match.
    """
    _apply(module, declared, PRUNING, "network.prune")


def _apply(
    module: nn.Module,
    declared: Mapping[str, Any],
    known: Mapping[str, Callable[..., Any]],
    key: str,
) -> None:
    for pattern, how in declared.items():
        name, arguments = next(iter(how.items())) if isinstance(how, Mapping) else (how, {})
        where = f"{key}[{pattern!r}]={how}"
        if name not in known:
            near = did_you_mean(str(name), known) or f"; choose from {', '.join(known)}"
            raise NetworkError(f"{where}: unknown{near}")
        matching = [n for n, _ in module.named_parameters() if matches(n, [pattern])]
        if not matching:
            names = ", ".join(n for n, _ in module.named_parameters())
            raise NetworkError(f"{where}: matches no parameter; there are {names}")
        for parameter in matching:
            path, _, tensor = parameter.rpartition(".")
            try:
                known[name](module.get_submodule(path), tensor, **(arguments or {}))
            except (TypeError, ValueError, RuntimeError, IndexError) as error:
                reason = first_line(error)
                raise NetworkError(f"{where}: {parameter}: {reason}") from error
