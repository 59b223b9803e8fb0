"""See what every layer puts out, by the layer's name, in either style."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from convtrain.models.functional import FunctionalModel, Observer


@contextmanager
def observe_outputs(
    model: nn.Module, observer: Observer, entering: Observer | None = None
) -> Iterator[None]:
    """Call ``observer(name, output)`` for every layer of every forward pass inside the block.

    Args:
        entering: is called before, with the layer's name and its inputs.
    """
    observers = (entering, observer)
    if isinstance(model, FunctionalModel):
        model.observers = (*model.observers, observers)
        try:
            yield
        finally:
            model.observers = tuple(o for o in model.observers if o is not observers)
        return
    handles = []
    for name, module in model.named_modules():
        if not name:
            continue
        handles.append(module.register_forward_hook(_after(name, observer)))
        if entering is not None:
            hook = _before(name, entering)
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _after(name: str, observer: Observer) -> Callable[..., None]:
    return lambda module, inputs, output: observer(name, output)


def _before(name: str, entering: Observer) -> Callable[..., None]:
    return lambda module, inputs, keywords: entering(name, (inputs, keywords))
