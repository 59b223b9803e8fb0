"""What ``optimizer.no_decay`` and ``optimizer.layer_decay`` mean for a training's parameters."""

from collections.abc import Iterator, Sequence

from torch import nn

from convtrain.models.function import CarriedFunction
from convtrain.models.functional import FunctionalModel
from convtrain.text import matches
from convtrain.training.parts import Parts, named_parameters

PRESETS = ("bias", "norm")
"""Words of ``optimizer.no_decay``; all others are globs."""


def without_decay(parts: Parts, chosen: Sequence[str]) -> set[str]:
    """Return the names of the parameters to which ``optimizer.no_decay`` gives no weight decay.

    ``bias`` are the parameters whose last name begins or ends with it (``bias_ih_l0``,
    ``in_proj_bias``), ``norm`` all own parameters of the layers whose class is called a norm.
    """
    norms = {path for path, kind in layer_classes(parts) if is_norm(kind)}
    globs = [glob for glob in chosen if glob not in PRESETS]
    found = set()
    for name, _ in named_parameters(parts):
        path, _, last = name.rpartition(".")
        is_bias = last.startswith("bias") or last.endswith("bias")
        preset = ("bias" in chosen and is_bias) or ("norm" in chosen and path in norms)
        if preset or matches(name, globs):
            found.add(name)
    return found


def depths(parts: Parts) -> dict[str, int]:
    """Return, by parameter name, how many layers are between a parameter's layer and the output.

    A layer is a child of the model, in their order, that has parameters. A norm belongs to the
    layer before it. Parameters of the model itself, such as a class token, belong to the first. If
    one child has all parameters, its children are the layers. The depth of a loss is 0.
    """
    found = dict.fromkeys((name for name, _ in named_parameters(parts)), 0)
    model = holder = parts[""]
    above = ""
    while len(children := _with_parameters(holder)) == 1 and not holder._parameters:
        name, holder = children[0]
        above = f"{above}{name}."
    if not children:  # the model is one layer
        return found
    classes, layer, layer_of = dict(layer_classes(parts)), -1, {}
    for name, child in children:
        belongs_to_previous = is_norm(classes[above + name]) and bool(child._parameters)
        layer += layer < 0 or not belongs_to_previous
        layer_of[name] = layer
    for name, _ in model.named_parameters():
        first = name.removeprefix(above).partition(".")[0]
        found[name] = layer - layer_of.get(first, 0)
    return found


def layer_classes(parts: Parts) -> Iterator[tuple[str, type]]:
    """Yield the name and the class of every layer, which both styles have in common."""
    for prefix, part in parts.items():
        for function in part.functions() if isinstance(part, FunctionalModel) else ():
            yield function.path, function.kind
            if isinstance(function, CarriedFunction):
                for name, module in function.module.named_modules(prefix=function.path):
                    yield name, type(module)
        if not isinstance(part, FunctionalModel):
            for name, module in part.named_modules(prefix=prefix):
                yield name, type(module)


def is_norm(kind: type) -> bool:
    """Tell whether a class of layers normalises, by its name: BatchNorm2d, LayerNorm, your own."""
    return "norm" in kind.__name__.lower()


def _with_parameters(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (n, child) for n, child in module.named_children() if any(True for _ in child.parameters())
    ]
