"""See what every layer puts out, by the layer's name, in either style."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from convtrain.models.functional import FunctionalModel

Observer = Callable[[str, Any], None]


@contextmanager
def observe_outputs(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Call ``observer(name, output)`` for every layer of every forward pass inside the block."""
    if isinstance(model, FunctionalModel):
        model.observers = (*model.observers, observer)
        try:
            yield
        finally:
            model.observers = tuple(o for o in model.observers if o is not observer)
        return
    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: observer(name, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
