"""Check the arguments of a layer against the signature of its class."""

import inspect
from collections.abc import Callable, Mapping

from torch import nn

from convtrain.config.signatures import BY_KEYWORD, ONE_OF, misfit, parameters_of
from convtrain.errors import NetworkError, did_you_mean
from convtrain.layers.entry import Entry
from convtrain.network.expressions import brief

Signature = Mapping[str, inspect.Parameter]

HIDDEN = ("self", "device", "dtype")


def signature_of(entry: Entry) -> Signature:
    """Return the arguments that may be declared for a layer.

    The last one is ``**kwargs`` if a user's own layer takes arguments that no signature names.
    """
    if entry.own is not None:
        return _own_signature(entry.own)
    keyword = inspect.Parameter.KEYWORD_ONLY
    if entry.module is nn.Sequential:
        return {"layers": inspect.Parameter("layers", keyword)}
    hidden: tuple[str, ...] = (*HIDDEN, "args", "kwargs")
    if issubclass(entry.module, nn.RNNBase):
        hidden = (*hidden, "mode")  # set by the subclass
    known: dict[str, inspect.Parameter] = {}
    for kind in entry.module.__mro__:  # nn.LSTM passes *args to nn.RNNBase
        declared = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
        known = {name: declared[name] for name in declared if name not in hidden}
        if known or "kwargs" not in declared:
            break
    if entry.module is nn.RNN:  # reads it from **kwargs, so no signature names it
        known["nonlinearity"] = inspect.Parameter(
            "nonlinearity", keyword, default="tanh", annotation=str
        )
    return known


def _own_signature(own: Callable[..., object]) -> Signature:
    if not isinstance(own, type):  # a function, whose first argument is the input
        return dict([*(parameters_of(own) or {}).items()][1:])
    known: dict[str, inspect.Parameter] = {}
    for kind in own.__mro__:  # where **kwargs is, the arguments of the base class may be declared
        declared = parameters_of(kind.__init__) or {}  # type: ignore[misc]
        more = {name: p for name, p in declared.items() if p.kind is p.VAR_KEYWORD}
        if kind is nn.Module:  # it takes none itself
            return {**known, **more} if own.__init__ is not kind.__init__ else {}  # type: ignore[misc]
        for name, parameter in declared.items():
            if name not in HIDDEN and parameter.kind in BY_KEYWORD:
                known.setdefault(name, parameter)
        if not more:
            break
    return known


def check_arguments(
    entry: Entry, known: Signature, declared: Mapping[str, object], where: str
) -> None:
    """Raise NetworkError for an argument that is unknown, or missing and not inferred."""
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for argument in declared:
        if argument not in known and not takes_any:
            near = did_you_mean(str(argument), known)
            choices = ", ".join(known) or "none, it takes no arguments"
            raise NetworkError(
                f"{where}: no argument is called {argument}{near or '; known: ' + choices}"
            )
    missing = [
        name
        for name, parameter in known.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind in BY_KEYWORD
        and name not in declared
        and name not in entry.infer
    ]
    if missing:
        raise NetworkError(f"{where}: {', '.join(missing)} must be given, as '{missing[0]}: ...'")


def check_types(entry: Entry, known: Signature, declared: Mapping[str, object], where: str) -> None:
    """Raise NetworkError for a value of the wrong type, even if torch would accept it."""
    for argument, value in declared.items():
        if entry.own is not None:
            text = misfit(known[argument], value) if argument in known else None
            if text is not None:
                raise NetworkError(f"{where}: {argument}={brief(value)} must be {text}")
            continue
        annotation = known[argument].annotation
        if annotation not in ONE_OF or value is known[argument].default:
            continue
        allowed, expected = ONE_OF[annotation]
        if not isinstance(value, allowed) or (isinstance(value, bool) and annotation is not bool):
            raise NetworkError(f"{where}: {argument}={brief(value)} must be {expected}")
