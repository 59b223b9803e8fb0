"""Statistics of a tensor, and other numbers on gradients; only ``is_finite`` waits for the device.

A row of :data:`STATISTICS` becomes a column in the tables of parameters and layers, a line in
docs/gradients.md (``python -m docs.generate``), a test against its definition and, with
``in_tensorboard``, a curve for each parameter.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from convtrain.training.norms import as_vector, gradient_norms, is_plain, whole

MAX_EXACT_ONES = 1 << 24
"""Float32 adds up to this many ones without rounding."""


class Statistic(NamedTuple):
    """One number that describes a tensor.

    Attributes:
        compute: maps a real, non-empty vector x and its mean to a scalar on the same device.
        definition: the same in NumPy, for the documentation and its test.
        in_tensorboard: show ``grad_NAME/PARAMETER`` for each sampled step.
    """

    name: str
    compute: Callable[[Tensor, Tensor], Tensor]
    definition: str
    in_tensorboard: bool = False


STATISTICS = (
    Statistic("norm", lambda x, mean: _norm(x), "np.sqrt((x**2).sum())", in_tensorboard=True),
    Statistic("mean", lambda x, mean: mean, "x.mean()"),
    Statistic("std", lambda x, mean: _norm(x - mean) / len(x) ** 0.5, "x.std()"),
    Statistic("minimum", lambda x, mean: x.amin(), "x.min()"),
    Statistic("maximum", lambda x, mean: x.amax(), "x.max()"),
    Statistic("zero_fraction", lambda x, mean: count_equal(x, 0) / len(x), "(x == 0).mean()"),
)

NAMES = tuple(statistic.name for statistic in STATISTICS)


def _update_ratios(after: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    changes = [new - old for new, old in zip(after, before, strict=True)]
    return gradient_norms(changes) / gradient_norms(before)


def _cosines(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    products = [(flat(a) * flat(b)).sum() for a, b in zip(first, second, strict=True)]
    return torch.stack(products) / (gradient_norms(first) * gradient_norms(second))


COMPARISONS = {"update_ratio": _update_ratios, "cosine": _cosines}
"""Numbers that compare two tensors of each parameter, NaN where undefined: the norm of the weights'
update over their norm before it, and the cosine of the gradients of successive steps."""


def describe(tensors: Sequence[Tensor]) -> Tensor:
    """Return statistics (len(tensors), len(STATISTICS)); an empty tensor has norm 0 and NaN."""
    return torch.stack([_describe(flat(tensor)) for tensor in tensors])


def _describe(x: Tensor) -> Tensor:
    if not len(x):
        return x.new_tensor([0.0 if name == "norm" else torch.nan for name in NAMES])
    mean = x.mean()
    return torch.stack([statistic.compute(x, mean).to(x.dtype) for statistic in STATISTICS])


def _norm(x: Tensor) -> Tensor:
    return gradient_norms([x])[0]


def count_equal(x: Tensor, number: float) -> Tensor:
    """Count the values of a real vector that equal a number: an int64 scalar."""
    # On the CPU, making and adding float32 ones takes a quarter of a mask's time.
    parts = [torch.eq(p, number, out=torch.empty_like(p)).sum() for p in x.split(MAX_EXACT_ONES)]
    return torch.stack(parts).to(torch.int64).sum()


def flat(tensor: Tensor) -> Tensor:
    """Return a tensor as a real float32 or float64 vector, without a copy if possible.

    A complex number becomes its real and then its imaginary part.
    """
    values = _as_real_vector(tensor)
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _as_real_vector(tensor: Tensor) -> Tensor:
    tensor = whole(tensor.detach())
    return as_vector(torch.view_as_real(tensor) if tensor.is_complex() else tensor)


def largest(gradients: Sequence[Tensor]) -> Tensor:
    """Return the largest absolute value of each gradient (P,), finite where all values are."""
    if all(is_plain(gradient) for gradient in gradients):
        return torch.stack(torch._foreach_norm(list(gradients), torch.inf))
    values = [flat(gradient) for gradient in gradients]
    return torch.stack([x.abs().amax() if len(x) else x.new_zeros(()) for x in values])


def is_finite(gradient: Tensor) -> bool:
    """Tell whether all values are finite; this waits for the device."""
    return bool(torch.isfinite(flat(gradient)).all())


def is_on_cpu(tensor: Tensor) -> bool:
    """Tell whether the host can read a value without waiting for a device."""
    return tensor.device.type == "cpu"


def checksums(tensors: Sequence[Tensor]) -> Tensor:
    """Sum the bit patterns of each tensor, float64 (len(tensors),); any changed bit changes it."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    values = [_as_real_vector(tensor) for tensor in tensors]
    sums = [x.view(integers[x.itemsize]).sum(dtype=torch.int64) for x in values]
    return torch.stack(sums).bitwise_and(2**52 - 1).double()
