"""The classes of other data, matched by name with those that a model knows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from convtrain.data.images import Images
from convtrain.errors import ConfigError, few
from convtrain.run.evaluation import Classes


def match_classes(model: Sequence[str], data: Sequence[str], source: str) -> Classes:
    """Match class names; a name that occurs twice in a list has no partner.

    Args:
        source: the override that says where the data comes from, for the error.

    Raises:
        ConfigError: no class has a partner.
    """
    if list(model) == list(data):
        return {"matched": list(model), "unknown": [], "missing": []}
    matched = [name for name in model if model.count(name) == data.count(name) == 1]
    if not matched:
        raise ConfigError(
            f"{source}: none of its classes, {few(data)}, is one of the model's, {few(model)}; the "
            f"names must be equal"
        )
    unknown = [name for name in data if name not in matched]
    return {
        "matched": matched,
        "unknown": list(dict.fromkeys(unknown)),
        "missing": list(dict.fromkeys(name for name in model if name not in matched)),
    }


class Divided(NamedTuple):
    """Images whose labels are the model's class indices, and the images of unknown classes."""

    known: Images
    unknown: Images | None
    known_at: Tensor  # int64, the place of each known image in the whole
    unknown_at: Tensor


def relabel(
    images: Images, model: Sequence[str], data: Sequence[str], classes: Classes, source: str
) -> Divided:
    """Replace the labels of the data by those of the model.

    Raises:
        ConfigError: no image is of a class that the model knows; or images with any number of
            labels lack some of the model's, of which it is then not known whether they are present.
    """
    everything, nothing = torch.arange(len(images)), torch.arange(0)
    if list(model) == list(data):
        return Divided(images, None, everything, nothing)
    if images.labels.ndim > 1:
        if classes["missing"]:
            raise ConfigError(
                f"{source}: says nothing of the labels {few(classes['missing'])}, which the model "
                f"predicts as well; an evaluation needs them all"
            )
        labels = images.labels[:, [data.index(name) for name in model]]
        return Divided(replace(images, labels=labels), None, everything, nothing)
    partner = [model.index(name) if name in classes["matched"] else -1 for name in data]
    labels = torch.tensor(partner)[images.labels]
    is_known = labels >= 0
    if is_known.all():
        return Divided(replace(images, labels=labels), None, everything, nothing)
    if not is_known.any():
        raise ConfigError(
            f"{source}: none of its {len(images)} images is of a class that the model knows: "
            f"{few(classes['matched'])}"
        )
    parts = is_known.nonzero()[:, 0], (~is_known).nonzero()[:, 0]
    known, unknown = (_some(images, part, labels) for part in parts)
    return Divided(known, unknown, *parts)


def _some(images: Images, indices: Tensor, labels: Tensor) -> Images:
    if isinstance(images.pixels, Tensor):
        return Images(images.pixels[indices], labels[indices])
    return Images(images.pixels.in_order(indices), labels[indices])
