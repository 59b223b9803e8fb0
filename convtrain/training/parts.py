"""The modules that are trained: the model, and a loss with parameters or buffers of its own."""

from collections.abc import Iterator, Mapping

from torch import nn

Parts = Mapping[str, nn.Module]
"""The modules by the prefix of their names: none for the model, ``loss`` for the loss."""


def parts_of(model: nn.Module, loss: object) -> Parts:
    """Return a model and its loss, which is left out if it is a function, as parts."""
    return {"": model, **({"loss": loss} if isinstance(loss, nn.Module) else {})}


def named_parameters(
    parts: Parts, *, remove_duplicate: bool = True
) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield all parameters by name, such as ``conv1.weight`` and ``loss.temperature``."""
    for prefix, module in parts.items():
        yield from module.named_parameters(prefix, remove_duplicate=remove_duplicate)


def named_modules(parts: Parts) -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules by path; the model's own path is empty."""
    for prefix, module in parts.items():
        yield from module.named_modules(prefix=prefix)
