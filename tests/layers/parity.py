"""Run a layer in both styles from the same bits, and compare everything that comes out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from convtrain.layers.entry import Entry
from convtrain.models.functional import functionalize
from tests.layers.cases import SAME, Case, Make, Still

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass
class Trace:
    """What one forward and backward pass left behind, by name; or the error it ended in."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    kinds: list[type] = field(default_factory=list)
    error: Exception | None = None


def trace(
    model: nn.Module,
    case: Case,
    dtype: torch.dtype,
    *,
    channels_last: bool = False,
    gradients: bool = True,
) -> Trace:
    """Call a layer as the case says, send a gradient back, and gather every number."""
    torch.manual_seed(1)
    leaves: list[Tensor] = []

    def ready(make: Make) -> Any:
        return _ready(make(dtype), leaves, channels_last)

    inputs: list[Any] = []
    for make in case.inputs:
        inputs.append(inputs[0] if make is SAME else ready(make))
    keywords = {name: ready(make) for name, make in case.keywords.items()}
    found = Trace()
    try:
        with torch.set_grad_enabled(gradients):
            output = model(*inputs, **keywords)
        outputs = list(_tensors(output, found.kinds))
        back = [tensor for tensor in outputs if gradients and tensor.requires_grad]
        if back:
            torch.manual_seed(2)
            torch.autograd.backward(back, [torch.randn_like(tensor) for tensor in back])
    except Exception as error:
        return Trace(error=error)
    found.tensors = {f"output {i}": tensor.detach() for i, tensor in enumerate(outputs)}
    found.tensors |= {f"input {i}": leaf for i, leaf in enumerate(leaves)}
    for i, leaf in enumerate(leaves):
        if leaf.grad is not None:
            found.tensors[f"gradient of input {i}"] = leaf.grad
    for name, parameter in model.named_parameters():
        found.tensors[name] = parameter.detach()
        if parameter.grad is not None:
            found.tensors[f"gradient of {name}"] = parameter.grad
    found.tensors |= dict(model.named_buffers())
    return found


def _ready(value: Any, leaves: list[Tensor], channels_last: bool) -> Any:
    if isinstance(value, Still):
        return value.tensor
    if isinstance(value, PackedSequence):
        return PackedSequence(_ready(value.data, leaves, channels_last), *value[1:])
    if isinstance(value, tuple):
        return tuple(_ready(item, leaves, channels_last) for item in value)
    if isinstance(value, Tensor) and value.is_floating_point():
        value = value.detach()
        if channels_last and value.dim() in FORMATS:
            value = value.contiguous(memory_format=FORMATS[value.dim()])
        leaves.append(value.requires_grad_())
        return value.clone()  # layers that work in place may not touch a leaf
    return value


def _tensors(value: Any, kinds: list[type]) -> Iterator[Tensor]:
    kinds.append(type(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item, kinds)


def differences(one: Trace, other: Trace) -> list[str]:
    """Name what is not the same, bit for bit: values, types, layouts, or errors."""
    if one.error or other.error:
        return [] if one.error and other.error else [f"{one.error!r} and {other.error!r}"]
    if one.kinds != other.kinds or one.tensors.keys() != other.tensors.keys():
        return [f"structure: {one.kinds, [*one.tensors]} and {other.kinds, [*other.tensors]}"]
    return [name for name in one.tensors if not _same(one.tensors[name], other.tensors[name])]


def _same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape or one.layout != other.layout:
        return False
    if one.layout == torch.sparse_coo:
        one, other = one.coalesce(), other.coalesce()
        return _same(one.indices(), other.indices()) and _same(one.values(), other.values())
    # Bytes, since NaN is not equal to itself.
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.stride() == other.stride() and torch.equal(*bits)


@dataclass(frozen=True)
class Verdict:
    """How a layer's cases went: what differed, and the number types that torch.nn itself takes."""

    different: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]


def check(entry: Entry, case: Case, dtypes: Sequence[torch.dtype] = DTYPES) -> Verdict:
    """Try a case in each of the number types, in every mode and layout.

    Where torch.nn raises, because it does not support the type or layout, so must the other style.
    """
    different: list[str] = []
    taken: list[torch.dtype] = []
    for dtype in dtypes:
        supported = True
        for training, channels_last, gradients in (
            (True, False, True),
            (False, False, True),
            (False, False, False),
            (True, True, True),
        ):
            pair = []
            for _ in range(2):  # not deepcopy: torch's of a decoder layer loses its activation
                torch.manual_seed(0)
                pair.append(case.make(entry.module, dtype).train(training))
                if channels_last:
                    _move_to_channels_last(pair[-1])
            module, twin = pair[0], functionalize(pair[1])
            how = {"channels_last": channels_last, "gradients": gradients}
            expected = trace(module, case, dtype, **how)
            got = trace(twin, case, dtype, **how)
            supported &= channels_last or expected.error is None
            different += [
                f"{dtype}, training={training}, {how}: {name}"
                for name in differences(expected, got)
            ]
        if supported:
            taken.append(dtype)
    return Verdict(tuple(different), tuple(taken))


def _move_to_channels_last(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.dim() in FORMATS:
            parameter.data = parameter.data.contiguous(memory_format=FORMATS[parameter.dim()])
