"""Numbers that describe a tensor, computed on its device without waiting for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from convtrain.training.norms import gradient_norms, in_memory_order, is_dense, is_plain, whole
from convtrain.training.sharding import gathered

LOWEST, HIGHEST = -40, 12
"""A histogram counts magnitudes from 2**LOWEST up to, but not including, 2**HIGHEST, one bin for
each power of two; what lies beyond is counted as underflow and overflow."""

BINS = HIGHEST - LOWEST
EXACT = 1 << 24
"""Up to this many ones float32 adds up without rounding."""
KINDS = ("nan", "posinf", "neginf", "zero", "underflow", "overflow")
_EXPONENTS = {torch.float32: (torch.int32, 23, 127), torch.float64: (torch.int64, 52, 1023)}
"""By type: whole numbers of its size, bits of the fraction, and the bias of the exponent."""


def flat(tensor: Tensor) -> Tensor:
    """Return a tensor's values as a real vector, whatever its layout; a copy only where it must be.

    The real and imaginary parts of complex numbers stand one after the other.
    """
    tensor = whole(tensor.detach())
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    return in_memory_order(tensor) if is_dense(tensor) else tensor.reshape(-1)


def describe(tensors: Sequence[Tensor]) -> Tensor:
    """Describe each tensor by norm, mean, deviation, minimum, maximum and the fraction of zeros.

    The deviation is the population's, ``norm(x - mean) / sqrt(n)``, in two passes. A tensor without
    elements has the norm 0 and no other number.

    Returns:
        of shape (len(tensors), 6), in the order of ``STATISTICS`` in the store.
    """
    if not tensors:
        return torch.empty(0, 6)
    return torch.stack([_describe(flat(tensor)) for tensor in tensors])


def _describe(values: Tensor) -> Tensor:
    count = len(values)
    if not count:
        return torch.tensor([0.0] + [torch.nan] * 5, device=values.device, dtype=values.dtype)
    mean = values.mean()
    norm, spread = gradient_norms([values, values - mean])
    zeros = _how_many(values, 0) / count
    return torch.stack(
        [norm, mean, spread / count**0.5, values.amin(), values.amax(), zeros.to(norm.dtype)]
    )


def norms_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the L2 norms of ordinary tensors, such as weights; see :func:`gradient_norms`."""
    return gradient_norms([tensor.detach() for tensor in tensors])


def inner_products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the inner product of each pair; of a complex pair the real part."""
    return torch.stack([(flat(a) * flat(b)).sum() for a, b in zip(first, second, strict=True)])


def largest(gradients: Sequence[Tensor]) -> Tensor:
    """Return the largest absolute value of each gradient, finite where all values are. (P,)"""
    if all(is_plain(gradient) for gradient in gradients):
        return torch.stack(torch._foreach_norm(list(gradients), torch.inf))
    return torch.stack([_largest(flat(gradient)) for gradient in gradients])


def _largest(values: Tensor) -> Tensor:
    return values.abs().amax() if len(values) else values.new_zeros(())


def is_finite(gradient: Tensor) -> bool:
    """Decide from the values; this waits for the device."""
    return bool(torch.isfinite(flat(gradient)).all())


def exact_norm(gradient: Tensor) -> Tensor:
    """Return the L2 norm of values whose squares float32 cannot hold, in float64."""
    return torch.linalg.vector_norm(flat(gradient).double())


def histogram(tensor: Tensor) -> Tensor:
    """Count values by magnitude: a bin for each power of two, then :data:`KINDS`.

    The exponent is read from the bits of each number, so that a bin's edge is exact.

    Returns:
        int64 of shape (BINS + 6,), on the tensor's device.
    """
    values = flat(tensor)
    bits, fraction, bias = _EXPONENTS[values.dtype]
    no_number = 2 * bias + 1  # the exponent of infinities and NaN
    exponents = values.view(bits).bitwise_right_shift(fraction).bitwise_and_(no_number)
    counts = _count(exponents, no_number + 1)
    posinf, neginf = _how_many(values, torch.inf), _how_many(values, -torch.inf)
    zero = _how_many(values, 0)
    low, high = LOWEST + bias, HIGHEST + bias
    rest = [
        counts[no_number] - posinf - neginf,
        posinf,
        neginf,
        zero,
        counts[:low].sum() - zero,
        counts[high:no_number].sum(),
    ]
    return torch.cat([counts[low:high], torch.stack(rest)])


def _how_many(values: Tensor, number: float) -> Tensor:
    """Count what equals a number, exactly; a whole number on the values' device."""
    # On the CPU ones in float32 are made and added up in a quarter of the time that a mask takes.
    found = [torch.eq(p, number, out=torch.empty_like(p)).sum() for p in values.split(EXACT)]
    return torch.stack(found).to(torch.int64).sum()


def _count(exponents: Tensor, kinds: int) -> Tensor:
    if _on_cpu(exponents):  # elsewhere bincount waits, to see the largest value
        return torch.bincount(exponents, minlength=kinds)
    counts = torch.zeros(kinds, dtype=torch.int64, device=exponents.device)
    return counts.scatter_add_(0, exponents.long(), torch.ones_like(exponents, dtype=torch.int64))


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def fingerprints(tensors: Sequence[Tensor]) -> Tensor:
    """Return a number for each tensor that changes when any of its bits does.

    Returns:
        float64 of shape (len(tensors),); the sum of all bit patterns, read as whole numbers.
    """
    sums = [_bits(tensor).sum(dtype=torch.int64) for tensor in tensors]
    if not sums:
        return torch.empty(0, dtype=torch.float64)
    return torch.stack(sums).bitwise_and(2**52 - 1).double()


def _bits(tensor: Tensor) -> Tensor:
    tensor = whole(tensor.detach())
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    values = in_memory_order(tensor) if is_dense(tensor) else tensor.reshape(-1)
    return values.view(
        {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.itemsize]
    )


def zero_filters(gradient: Tensor) -> Tensor:
    """Tell which of a convolution's filters have a gradient of exact zeros, a bool for each."""
    return gathered(gradient.detach().abs().amax((1, 2, 3))) == 0


__all__ = [
    "BINS", "HIGHEST", "KINDS", "LOWEST", "describe", "exact_norm", "fingerprints", "flat",
    "histogram", "inner_products", "is_finite", "largest", "norms_of", "zero_filters",
]  # fmt: skip
