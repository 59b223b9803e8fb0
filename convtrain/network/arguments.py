"""The arguments of a layer, checked against the signature of its class."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from convtrain.errors import NetworkError, did_you_mean
from convtrain.layers.entry import Entry
from convtrain.network.expressions import brief


def signature_of(entry: Entry) -> Mapping[str, inspect.Parameter]:
    """Return the arguments that may be declared for a layer."""
    if entry.module is nn.Sequential:
        return {"layers": inspect.Parameter("layers", inspect.Parameter.KEYWORD_ONLY)}
    hidden: tuple[str, ...] = ("self", "args", "kwargs", "device", "dtype")
    if issubclass(entry.module, nn.RNNBase):
        hidden = (*hidden, "mode")  # which of the recurrent layers it is
    for kind in entry.module.__mro__:  # nn.LSTM takes *args and hands them on to nn.RNNBase
        declared = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
        known = {name: declared[name] for name in declared if name not in hidden}
        if known or "kwargs" not in declared:
            return {**known, **_UNDECLARED.get(entry.module, {})}
    return {}


_UNDECLARED: dict[type[nn.Module], dict[str, inspect.Parameter]] = {
    nn.RNN: {  # taken out of **kwargs, so that no signature names it
        "nonlinearity": inspect.Parameter(
            "nonlinearity", inspect.Parameter.KEYWORD_ONLY, default="tanh", annotation=str
        )
    }
}


def check_names(
    entry: Entry, known: Mapping[str, inspect.Parameter], declared: Mapping[str, Any], where: str
) -> None:
    for argument in declared:
        if argument not in known:
            near = did_you_mean(str(argument), known)
            choices = ", ".join(known) or "none, it takes no arguments"
            raise NetworkError(
                f"{where}: no argument is called {argument}{near or '; known: ' + choices}"
            )
    missing = [
        name
        for name, parameter in known.items()
        if parameter.default is inspect.Parameter.empty
        and name not in declared
        and name not in entry.infer
    ]
    if missing:
        raise NetworkError(f"{where}: {', '.join(missing)} must be given, as '{missing[0]}: ...'")


_PLAIN_TYPES: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "a word"),
}


def check_types(
    known: Mapping[str, inspect.Parameter], declared: Mapping[str, Any], where: str
) -> None:
    """Refuse what torch itself would take, or refuse in words that name neither key nor value."""
    for argument, value in declared.items():
        annotation = known[argument].annotation
        if annotation not in _PLAIN_TYPES or value is known[argument].default:
            continue
        allowed, words = _PLAIN_TYPES[annotation]
        is_bool = isinstance(value, bool)
        if not isinstance(value, allowed) or (is_bool and annotation is not bool):
            raise NetworkError(f"{where}: {argument}={brief(value)} must be {words}")
