"""The head of a model: the layer whose outputs are the logits."""

from collections.abc import Iterable, Sequence

from torch import nn

from convtrain.text import matches

HEAD, BACKBONE = WORDS = ("head", "backbone")
"""Words beside globs of names: the parameters of the head, and all others of the model."""


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


def matching(globs: Sequence[str], names: Iterable[str], model: nn.Module) -> set[str]:
    """Return which names of parameters and buffers are meant by globs, or by a word of WORDS.

    A word that is itself one of the names is a glob.
    """
    known = set(names)
    words = [word for word in WORDS if word in globs and word not in known]
    found = {name for name in known if matches(name, [g for g in globs if g not in words])}
    if words:
        head = head_of(model)
        own = [n for named in (model.named_parameters(), model.named_buffers()) for n, _ in named]
        found |= {n for n in own if (HEAD if is_in_head(n, head) else BACKBONE) in words}
    return found & known


def _owner(path: str) -> str:
    """Return the layer that a parametrization computes a weight of, or the path itself."""
    return path.partition("parametrizations.")[0].removesuffix(".")
