"""Initial weights as data: a pattern of parameter names, and a function of ``torch.nn.init``."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from convtrain.errors import NetworkError, did_you_mean
from convtrain.text import matches

KNOWN = sorted(
    name[:-1] for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")
)


def initialize(module: nn.Module, init: Mapping[str, Any]) -> None:
    """Fill parameters in place, pattern by pattern in the order given.

    Args:
        module: whose parameters are filled.
        init: ``{"*.weight": "ones"}`` or ``{"conv*.weight": {"kaiming_normal": {"mode":
            "fan_out"}}}``; patterns are globs over parameter names.

    Raises:
        NetworkError: a function is unknown, refuses its arguments, or a pattern matches nothing.
    """
    names = dict(module.named_parameters())
    for pattern, how in init.items():
        function, arguments = next(iter(how.items())) if isinstance(how, Mapping) else (how, {})
        where = f"network.init[{pattern!r}]={how}"
        if function not in KNOWN:
            raise NetworkError(f"{where}: not in torch.nn.init{did_you_mean(str(function), KNOWN)}")
        matching = [name for name in names if matches(name, [pattern])]
        if not matching:
            raise NetworkError(f"{where}: matches no parameter; there are {', '.join(names)}")
        for name in matching:
            try:
                getattr(nn.init, f"{function}_")(names[name], **(arguments or {}))
            except (TypeError, ValueError) as error:
                raise NetworkError(f"{where}: {name}: {error}") from error
