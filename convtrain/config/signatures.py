"""Check arguments against the signature of what they will be passed to, without a call."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from convtrain.config.mistakes import MISSING
from convtrain.errors import did_you_mean, few

ONE_OF: dict[object, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
    str: ((str,), "a word"),
}
"""Annotation of an argument to the types allowed in YAML, and their name in errors."""

LISTS = (list, tuple, set, frozenset, Sequence, Iterable)
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
BEYOND_YAML = ("torch.Tensor", "torch.nn.parameter.Parameter")  # no value in YAML is one


class Wrong(NamedTuple):
    """What is wrong with one argument."""

    argument: str
    text: str


def wrong_arguments(
    called: Callable[..., object],
    arguments: Mapping[str, object],
    *,
    positional: int = 0,
    given: Iterable[str] = (),
    beside: Iterable[str] = (),
) -> Iterator[Wrong]:
    """Yield what is wrong with keyword arguments: unknown ones, missing ones, wrong types.

    Args:
        called: a class or a function. One whose signature cannot be read accepts everything.
        positional: number of leading arguments that convtrain passes by position.
        given: names of arguments that convtrain passes by keyword.
        beside: other keys of the section, one of which may be misspelt.
    """
    parameters = parameters_of(called)
    if parameters is None:
        return
    leading = [p.name for p in parameters.values() if p.kind in POSITIONAL][:positional]
    passed = {*given, *leading}
    known = {n: p for n, p in parameters.items() if n not in passed and p.kind in BY_KEYWORD}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, value in arguments.items():
        if name in passed:
            yield Wrong(name, "is given by convtrain; leave it out")
        elif name in known:
            if (expected := misfit(known[name], value)) is not None:
                yield Wrong(name, f"must be {expected} (an argument of {name_of(called)})")
        elif not takes_any:
            near = (
                did_you_mean(name, [*known, *beside])
                or f"; it takes {few(known, 20) or 'no arguments'}"
            )
            yield Wrong(name, f"{name_of(called)} has no such argument{near}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in arguments:
            yield Wrong(name, f"{MISSING} (an argument of {name_of(called)})")


def takes(called: Callable[..., object], name: str) -> bool:
    """Tell whether a class or a function has an argument of this name."""
    return name in (parameters_of(called) or {})


def parameters_of(called: Callable[..., object]) -> Mapping[str, inspect.Parameter] | None:
    """Return the parameters of a call, with annotations that are resolved where they can be."""
    try:
        parameters = dict(inspect.signature(called).parameters)
    except (TypeError, ValueError):  # written in C
        return None
    hints: dict[str, object] = {}
    with suppress(Exception):  # an annotation may name what is imported for type checkers alone
        hints = get_type_hints(
            called.__init__ if isinstance(called, type) else called  # type: ignore[misc]
        )
    return {
        name: parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in parameters.items()
    }


def takes_tensor(parameter: inspect.Parameter) -> bool:
    """Tell whether an argument is annotated as a tensor, which YAML can give as a list."""
    annotation = parameter.annotation
    return any(_is_tensor(part) for part in (annotation, *get_args(annotation)))


def _is_tensor(annotation: object) -> bool:
    module, name = (getattr(annotation, key, "") for key in ("__module__", "__qualname__"))
    return f"{module}.{name}" in BEYOND_YAML


def name_of(called: Callable[..., object]) -> str:
    return str(getattr(called, "__name__", called))


def misfit(parameter: inspect.Parameter, value: object) -> str | None:
    """Return what a value should be if it certainly does not fit the annotation, or None.

    Values are those of YAML: numbers, words, true and false, null, lists and mappings. Annotations
    that are no simple types accept everything.
    """
    if value is parameter.default or _fits(parameter.annotation, value):
        return None
    return _described(parameter.annotation)


def _fits(annotation: object, value: object) -> bool:
    origin, inner = get_origin(annotation), get_args(annotation)
    if _is_tensor(annotation):
        return type(value) is annotation
    if annotation in ONE_OF:
        allowed, _ = ONE_OF[annotation]
        if isinstance(value, list) and annotation in (int, float):
            return True  # torchvision annotates so what takes a number for each channel as well
        return isinstance(value, allowed) and (annotation is bool or not isinstance(value, bool))
    if annotation in (None, NoneType):
        return value is None
    if origin in (Union, UnionType):
        return any(_fits(part, value) for part in inner)
    if origin is Literal:
        return value in inner
    if Callable in (origin, annotation):
        return isinstance(value, Mapping)  # or a description of one
    if annotation in LISTS or origin in LISTS:
        return isinstance(value, list | tuple) and _fit_each(origin, inner, value)
    if annotation is dict or origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return True


def _fit_each(origin: object, inner: tuple[object, ...], values: Sequence[object]) -> bool:
    if not inner:
        return True
    if origin is tuple and not (len(inner) == 2 and inner[1] is ...):
        return len(values) == len(inner) and all(map(_fits, inner, values))
    return all(_fits(inner[0], value) for value in values)


def _described(annotation: object) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in ONE_OF:
        return ONE_OF[annotation][1]
    if annotation in (None, NoneType):
        return "null"
    if origin in (Union, UnionType):
        texts = dict.fromkeys(_described(part) for part in inner)
        return " or ".join(text for text in texts if text)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if Callable in (origin, annotation):
        return "a function, which a configuration cannot hold"
    if annotation in LISTS or origin in LISTS:
        numbered = origin is tuple and inner and inner[-1] is not ...
        of = [_described(part) for part in inner if part is not ...]
        if numbered:
            return f"a list of {len(inner)}: {', '.join(of)}"
        return f"a list{f', each {of[0]}' if of and of[0] else ''}"
    if annotation is dict or origin in (dict, Mapping):
        return "a mapping"
    return ""
