"""Weights that torchvision publishes, by name, and the images that they expect."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from convtrain.errors import ConfigError, did_you_mean
from convtrain.models.build import extra_arguments, on_meta

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

NORMALISE_THEMSELVES = ("googlenet", "inception_v3")
"""Models that torchvision's builders turn from ImageNet's mean and deviation to 0.5 and 0.5."""

OLD_NAME = re.compile(
    r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$"
)
"""A tensor in a file of DenseNet from when the names of layers could have a dot."""


def published(model: str, weights: str) -> "WeightsEnum":
    """Return torchvision's weights for a model; ConfigError names those that there are."""
    from torchvision import models  # which takes long to import

    where, known = f"model.weights={weights}", models.list_models(module=models)
    if model not in known:
        raise ConfigError(
            f"{where}: torchvision publishes no weights for {model}{did_you_mean(model, known)}; "
            f"type a file or the directory of a run, or choose one of "
            f"torchvision.models.list_models()"
        )
    there = models.get_model_weights(model)
    if weights not in there.__members__:  # DEFAULT is a second name of one of them
        names = [*there.__members__]
        raise ConfigError(f"{where}: {model} has {', '.join(names)}{did_you_mean(weights, names)}")
    return there[weights]


def expected_pixels(model: str, weights: str) -> dict[str, object]:
    """Return the values of ``data`` that torchvision's weights expect; see :func:`published`."""
    images = published(model, weights).transforms()
    (side,), (store_size,) = images.crop_size, images.resize_size
    middle = [0.5] * len(images.mean) if model in NORMALISE_THEMSELVES else None
    return {
        "shape": [len(images.mean), side, side],
        "mean": middle or list(images.mean),
        "std": middle or list(images.std),
        "store_size": store_size,
        "eval_crop": round(side / store_size, 4),
        "interpolation": images.interpolation.value,
    }


def names_of_torchvision(name: str, network: nn.Module) -> dict[str, str]:
    """Return torchvision's name of each tensor to that in a declared network of the same name.

    The two have the same tensors in the same order, but for ConvNeXt's layer scale, which
    torchvision's blocks hold before their layers. Empty if torchvision has no such model, or one
    with another number of tensors.
    """
    from torchvision import models

    if name not in models.list_models(module=models):
        return {}
    arguments = extra_arguments(name)
    arguments |= {"init_weights": False} if arguments else {}  # torchvision warns without it
    theirs = on_meta(partial(models.get_model, name, weights=None, **arguments))
    found: dict[str, str] = {}
    for kind in ("named_parameters", "named_buffers"):
        left = _scale_last([key for key, _ in getattr(theirs, kind)()])
        right = [key for key, _ in getattr(network, kind)()]
        if len(left) != len(right):
            return {}
        found |= dict(zip(left, right, strict=True))
    return found


def _scale_last(names: Sequence[str]) -> list[str]:
    """Move the names of layer scales behind those of the other tensors of their blocks."""
    ordered: list[str] = []
    waiting: list[str] = []
    for name in names:
        if waiting and not name.startswith(waiting[0].removesuffix("layer_scale")):
            ordered.append(waiting.pop())
        (waiting if name.endswith("layer_scale") else ordered).append(name)
    return ordered + waiting


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of DenseNet's old files the names that the model has today."""
    return {OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in state.items()}
