"""Functions of torch applied to parameters by name pattern: initialise, parametrize, prune.

A network's YAML declares them beside its layers::

    init: {"conv*.weight": {kaiming_normal: {mode: fan_out}}, "*.bias": zeros}
    parametrize: {"conv*.weight": weight_norm}
    prune: {"*.weight": {l1_unstructured: {amount: 0.3}}}

Patterns are globs over parameter names.
"""

from collections.abc import Callable, Mapping

from torch import nn
from torch.nn.utils import parametrizations, prune

from convtrain.errors import NetworkError, did_you_mean, first_line
from convtrain.text import matches

Function = Callable[..., object]

FUNCTIONS: dict[str, dict[str, Function]] = {
    "init": {
        name[:-1]: function
        for name, function in sorted(vars(nn.init).items())
        if name.endswith("_") and not name.startswith("_")
    },
    "parametrize": {
        name: getattr(parametrizations, name)
        for name in ("weight_norm", "spectral_norm", "orthogonal")
    },
    "prune": {
        name: getattr(prune, name)
        for name in ("l1_unstructured", "random_unstructured", "ln_structured", "random_structured")
    },
}
"""Key of ``network`` to the functions that it may name."""


def apply_to_parameters(module: nn.Module, key: str, declared: Mapping[str, object]) -> None:
    """Apply the declared functions to a module's parameters, in place and in order.

    A NetworkError says that a function is unknown or refuses its arguments, or that a pattern
    matches nothing. ``key`` is ``init``, ``parametrize`` or ``prune``.
    """
    known = FUNCTIONS[key]
    for pattern, how in declared.items():
        name, arguments = next(iter(how.items())) if isinstance(how, Mapping) else (how, {})
        where = f"network.{key}[{pattern!r}]={how}"
        if name not in known:
            near = did_you_mean(str(name), known) or f"; choose from {', '.join(known)}"
            raise NetworkError(f"{where}: unknown{near}")
        names = [parameter for parameter, _ in module.named_parameters()]
        matching = [parameter for parameter in names if matches(parameter, [pattern])]
        if not matching:
            raise NetworkError(f"{where}: matches no parameter; there are {', '.join(names)}")
        for parameter in matching:
            path, _, attribute = parameter.rpartition(".")
            owner = module.get_submodule(path)
            subject = (getattr(owner, attribute),) if key == "init" else (owner, attribute)
            try:
                known[name](*subject, **(arguments or {}))
            except (TypeError, ValueError, RuntimeError, IndexError) as error:
                raise NetworkError(f"{where}: {parameter}: {first_line(error)}") from error
