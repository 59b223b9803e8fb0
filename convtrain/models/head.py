"""The head of a model: the layer whose outputs are the logits."""

from torch import nn


def head_of(model: nn.Module) -> tuple[str, ...]:
    """Return the path of a model's head, in either style.

    It is the last layer, in the order of the model's modules, with a weight of two dimensions or
    more, so that a norm is none. A model of timm names its classifiers itself (one, or two where it
    is distilled). The tuple is empty for a model without weights; the path is ``""`` if the model
    is a single layer.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    if callable(own := getattr(model, "get_classifier", None)):
        named = own()
        found = [paths.get(id(m)) for m in (named if isinstance(named, tuple) else (named,))]
        if known := tuple(path for path in found if path is not None):
            return known
    last = [
        path
        for path, module in model.named_modules()
        if any(tensor is not None and tensor.ndim > 1 for tensor in module._parameters.values())
    ]
    return tuple(_owner(path) for path in last[-1:])


def is_in_head(name: str, head: tuple[str, ...]) -> bool:
    """Tell whether a parameter or buffer belongs to the head, by its name in ``state_dict``."""
    return any(not path or name.startswith(f"{path}.") for path in head)


def _owner(path: str) -> str:
    """Return the layer that a parametrization computes a weight of, or the path itself."""
    return path.partition("parametrizations.")[0].removesuffix(".")
