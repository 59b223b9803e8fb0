"""Load weights from elsewhere into a model: which tensors fit, and which are replaced."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convtrain.errors import ConfigError, few
from convtrain.models.head import head_of, is_in_head

WRAPPERS = re.compile(r"(module\.|model\.|_orig_mod\.)*")
"""A prefix of names by DistributedDataParallel, a LightningModule and torch.compile."""

START = re.compile(r"^|(?<=\.)")
"""Where a name without a prefix can begin."""

UNNEEDED = "num_batches_tracked"
"""A counter that batch norm's old files lack; only ``momentum=None`` reads it."""


class Fit(NamedTuple):
    """How the tensors of a file fit a model.

    Attributes:
        tensors: what the model gets, by its own names.
        adapted: names of the first convolution's weight, if the images have other channels.
        replaced: names of the head's tensors, which stay as the model was initialised.
        left_over: names in the file that the model does not have.
        classes: outputs of the head in the file, or None if the file has no head.
    """

    tensors: dict[str, Tensor]
    adapted: list[str]
    replaced: list[str]
    left_over: list[str]
    classes: int | None


def fit(
    model: nn.Module,
    found: Mapping[str, Tensor],
    where: str,
    *,
    aliases: Mapping[str, str] | None = None,
    replace_head: bool = False,
) -> Fit:
    """Match tensors to those of a model, which is not changed and may be on the meta device.

    The head is replaced if it has another number of outputs, or if the file has none. If the images
    have other channels than those of the file, the first convolution's weight is adapted as timm
    does it.

    Args:
        found: tensors by their names; the prefix that they share is removed.
        where: the override and the file, for errors.
        aliases: another library's names to the model's, for a file with the former.
        replace_head: replace the head although the number of outputs is the same.

    Raises:
        ConfigError: names the tensors that the file lacks, or that have another shape.
    """
    own = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    theirs = _without_prefix(found, {*own, *(aliases or ())}, where)
    if aliases and not own.keys() & theirs.keys():
        theirs = {aliases.get(name, name): tensor for name, tensor in theirs.items()}
    layers = _logit_layers(model, own)
    head = [name for name in own if is_in_head(name, layers)]
    present = [name for name in head if name in theirs and theirs[name].ndim]
    other_size = any(
        name not in theirs or theirs[name].shape[:1] != own[name].shape[:1] for name in head
    )
    replaced = head if replace_head or other_size else []
    first = next((name for name, tensor in own.items() if tensor.ndim == 4), None)
    tensors, adapted, missing, misfits = dict[str, Tensor](), list[str](), list[str](), list[str]()
    for name, tensor in own.items():
        if name in replaced:
            continue
        if (value := theirs.get(name)) is None:
            missing += [] if name.endswith(UNNEEDED) else [name]
        elif not name.endswith(UNNEEDED) and _kind(value) != _kind(tensor):
            misfits.append(f"{name} is {_kind(value)} there and {_kind(tensor)} in the model")
        elif value.shape == tensor.shape:
            tensors[name] = value.to(tensor.dtype)
        elif name == first and (converted := _other_channels(value, tensor)) is not None:
            tensors[name] = converted
            adapted.append(name)
        else:
            misfits.append(f"{name} is {_shape(value)} there and {_shape(tensor)} in the model")
    left_over = [name for name in theirs if name not in own]
    if missing:
        instead = f"; it has {few(left_over, 3)} instead" if left_over else ""
        raise ConfigError(f"{where} lacks {few(missing, 3)}, which the model has{instead}")
    if misfits:
        raise ConfigError(f"{where} does not fit the model: {few(misfits, 3)}")
    if lost := [name for name, value in tensors.items() if not _is_finite(value)]:
        raise ConfigError(
            f"{where} holds values that are not finite in {few(lost, 3)}; choose other weights"
        )
    classes = theirs[present[0]].shape[0] if present else None
    return Fit(tensors, adapted, replaced, left_over, classes)


def _logit_layers(model: nn.Module, own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the paths of the layers of the head that compute the logits, in either style.

    timm names them; of another head it is the last layer with a weight matrix.
    """
    named = getattr(model, "pretrained_cfg", None) or {}
    if classifier := named.get("classifier"):
        return (classifier,) if isinstance(classifier, str) else tuple(classifier)
    last = []
    for path in head_of(model):
        matrices = [n for n, tensor in own.items() if is_in_head(n, (path,)) and tensor.ndim > 1]
        last += [n.partition("parametrizations.")[0].rpartition(".")[0] for n in matrices[-1:]]
    return tuple(last)


def copy_into(model: nn.Module, fitted: Fit) -> None:
    """Give a model the tensors that fit it; the others stay as they are."""
    state = model.state_dict()
    state.update(fitted.tensors)
    model.load_state_dict(state)


def _without_prefix(
    found: Mapping[str, Tensor], known: set[str], where: str
) -> Mapping[str, Tensor]:
    """Remove the prefix after which the most names are known; a ConfigError names equal ones."""
    starts = [(name, at.start()) for name in found for at in START.finditer(name)]
    counts = Counter(name[:start] for name, start in starts if name[start:] in known)
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    prefix = next(filter(WRAPPERS.fullmatch, best), best[0] if best else "")
    if len(best) > 1 and not WRAPPERS.fullmatch(prefix) and most > len(known) // 3:
        raise ConfigError(
            f"{where} has the model's tensors with each of the prefixes {few(best)}; save those of "
            f"one as a file"
        )
    others = {name: tensor for name, tensor in found.items() if not name.startswith(prefix)}
    inside = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    return others | inside


def _other_channels(weight: Tensor, own: Tensor) -> Tensor | None:
    """Return a convolution's weight (out, 3, height, width) for other channels than three.

    Grey images get the sum over the colours. For more channels, the colours are repeated and scaled
    so that their sum stays the same (timm's ``adapt_input_conv``).
    """
    there, here = weight.shape[1:2], own.shape[1:2]
    others_differ = weight.ndim != 4 or weight.shape[:1] + weight.shape[2:] != (
        own.shape[:1] + own.shape[2:]
    )
    if others_differ or there != (3,) or not weight.is_floating_point():
        return None
    if here == (1,):
        return weight.float().sum(dim=1, keepdim=True)
    (channels,) = here
    repeated = weight.float().repeat(1, math.ceil(channels / 3), 1, 1)[:, :channels]
    return repeated * (3 / channels)


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _kind(tensor: Tensor) -> str:
    """Tell the kind of a tensor's numbers: those of another precision can be converted."""
    kinds = {
        "sparse": tensor.layout is not torch.strided,
        "quantized": tensor.is_quantized,
        "complex": tensor.is_complex(),
        "floating point": tensor.is_floating_point(),
    }
    return next((kind for kind, holds in kinds.items() if holds), "integer")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
