"""Layers whose backward pass on a GPU sums in no fixed order, and their substitutes.

With ``trainer.deterministic=true``, torch refuses them only once a gradient reaches one. Here they
are refused before the training begins.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from convtrain.errors import NetworkError
from convtrain.layers.vision import GridSample, Interpolate, Pad
from convtrain.models.functional import FunctionalModel

Condition = Callable[[Any], bool]
"""Tells from a layer's settings whether it is nondeterministic."""


def _always(layer: object) -> bool:
    return True


def _has_several_outputs(layer: Any) -> bool:
    """torch computes an average over the whole image as a mean, which is deterministic."""
    size = layer.output_size
    return any(each != 1 for each in (size if isinstance(size, tuple | list) else (size,)))


def _interpolates(layer: Any) -> bool:
    """torch has a deterministic bilinear mode, but not with antialiasing."""
    bilinear = layer.mode == "bilinear" and getattr(layer, "antialias", False)
    return bilinear or layer.mode in ("linear", "bicubic", "trilinear", "area")


def _is_listed_by_torch(layer: object) -> bool:
    """torch's documentation lists the layers that this version refuses."""
    _, _, refused = (torch.use_deterministic_algorithms.__doc__ or "").partition("will throw")
    return type(layer).__name__ in refused or getattr(layer, "kind", type).__name__ in refused


STRIDED = "Conv3d with a stride"
PADDED = "padding_mode: zeros or padding_mode: replicate"

SUBSTITUTES: dict[type[nn.Module], tuple[Condition, str]] = {
    nn.AdaptiveAvgPool1d: (_has_several_outputs, "AvgPool1d with a kernel_size, or output_size: 1"),
    nn.AdaptiveAvgPool2d: (_has_several_outputs, "AvgPool2d with a kernel_size, or output_size: 1"),
    nn.AdaptiveAvgPool3d: (_has_several_outputs, f"{STRIDED}, or output_size: 1"),
    nn.AvgPool3d: (_always, STRIDED),
    nn.LPPool3d: (_always, STRIDED),
    nn.MaxPool3d: (_is_listed_by_torch, STRIDED),
    nn.FractionalMaxPool2d: (_always, "MaxPool2d"),
    nn.FractionalMaxPool3d: (_always, STRIDED),
    nn.MaxUnpool1d: (_always, "ConvTranspose1d"),
    nn.MaxUnpool2d: (_always, "ConvTranspose2d"),
    nn.MaxUnpool3d: (_always, "ConvTranspose3d"),
    nn.Conv1d: (lambda layer: layer.padding_mode == "reflect", PADDED),
    nn.Conv3d: (lambda layer: layer.padding_mode == "reflect", PADDED),
    nn.ReflectionPad1d: (_always, "ReplicationPad1d"),
    nn.ReflectionPad3d: (_always, "ReplicationPad3d"),
    nn.LocalResponseNorm: (_always, "BatchNorm2d or GroupNorm"),
    nn.Upsample: (_interpolates, "mode: nearest or mode: bilinear"),
    nn.EmbeddingBag: (lambda layer: layer.mode == "max", "mode: sum or mode: mean"),
    Interpolate: (_interpolates, "mode: nearest, or mode: bilinear without antialias"),
    Pad: (  # torch has a deterministic kernel for height and width together
        lambda layer: layer.mode == "reflect" and len(layer.pad) != 4,
        "mode: replicate or mode: constant",
    ),
    GridSample: (_always, "Interpolate with mode: nearest"),
}
"""Layer class to the condition under which it is refused, and the substitute to declare."""


def refuse_nondeterministic(model: nn.Module) -> None:
    """Raise NetworkError for the first layer that has no deterministic backward pass on a GPU."""
    for name, kind, layer in _layers(model):
        applies, substitute = SUBSTITUTES.get(kind, (None, ""))
        if applies is not None and applies(layer):
            raise NetworkError(
                f"trainer.deterministic=true: {name or 'the model'} is {kind.__name__}, which has "
                f"no deterministic backward pass on a GPU; declare {substitute} instead, or set "
                f"trainer.deterministic=false"
            )


def _layers(model: nn.Module) -> Iterator[tuple[str, type, object]]:
    if isinstance(model, FunctionalModel):
        yield from ((function.path, function.kind, function) for function in model.functions())
    for name, module in model.named_modules():
        yield name, type(module), module


@cache
def pool_deterministically() -> torch.library.Library:
    """Replace torch's backward pass of adaptive max pooling, which sums in no fixed order on a GPU.

    The values are the same. The replacement lasts as long as the library, which the cache keeps.
    """
    override = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of each replacement
        override.impl("adaptive_max_pool2d_backward", _pool_backward, "CUDA")
    return override


def _pool_backward(gradient: Tensor, images: Tensor, indices: Tensor) -> Tensor:
    """Add each maximum's gradient (..., H, W) to the pixel that it was taken from."""
    height, width = images.shape[-2:]
    flat = gradient.new_zeros(*images.shape[:-2], height * width)
    flat.scatter_add_(-1, indices.flatten(-2), gradient.flatten(-2))
    return flat.view(images.shape)
