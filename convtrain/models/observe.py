"""Observe the output of every layer, by the layer's name, in either style."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from convtrain.models.function import CarriedFunction, Observer
from convtrain.models.functional import FunctionalModel


@contextmanager
def observe_outputs(
    model: nn.Module, observer: Observer, entering: Observer | None = None
) -> Iterator[None]:
    """Call ``observer(name, output)`` for every layer of every forward pass inside the block.

    ``entering`` is called before the layer, with its name and its inputs.
    """
    observers, handles = (entering, observer), []
    for name, module in _modules(model):
        if name:
            handles.append(module.register_forward_hook(_after(name, observer)))
            if entering is not None:
                hook = _before(name, entering)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    if isinstance(model, FunctionalModel):
        model.observers.append(observers)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if isinstance(model, FunctionalModel):
            model.observers.remove(observers)


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield all layers that run as modules; in the functional style, the carried ones."""
    if not isinstance(model, FunctionalModel):
        yield from model.named_modules()
        return
    seen: set[nn.Module] = set()  # a module may be carried under two names
    for function in model.functions():
        if isinstance(function, CarriedFunction):
            yield from function.module.named_modules(seen, prefix=function.path)


def _after(name: str, observer: Observer) -> Callable[..., None]:
    return lambda module, inputs, output: observer(name, output)


def _before(name: str, entering: Observer) -> Callable[..., None]:
    return lambda module, inputs, keywords: entering(name, (inputs, keywords))
