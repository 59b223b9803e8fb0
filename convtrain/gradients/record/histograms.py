"""Histograms over the magnitude of a tensor's values, counted without waiting for the device."""

import torch
from torch import Tensor

from convtrain.gradients.record.statistics import count_equal, flat, is_on_cpu

LOWEST, HIGHEST = -40, 12
"""The bins cover magnitudes in [2**LOWEST, 2**HIGHEST); others count as underflow or overflow."""

BINS = HIGHEST - LOWEST
KINDS = ("nan", "posinf", "neginf", "zero", "underflow", "overflow")
_EXPONENTS = {torch.float32: (torch.int32, 23, 127), torch.float64: (torch.int64, 52, 1023)}
"""By dtype: the integer of its size, the bits of the fraction, the bias of the exponent."""


def histogram(tensor: Tensor) -> Tensor:
    """Count values in a bin for each power of two, then by :data:`KINDS`: int64 (BINS + 6).

    The exponent is read from the bits of each number, so the edges of the bins are exact.
    """
    values = flat(tensor)
    integer, fraction, bias = _EXPONENTS[values.dtype]
    special = 2 * bias + 1  # the exponent of infinities and NaN
    exponents = values.view(integer).bitwise_right_shift(fraction).bitwise_and_(special)
    counts = _count(exponents, special + 1)
    posinf, neginf = count_equal(values, torch.inf), count_equal(values, -torch.inf)
    zero = count_equal(values, 0)
    low, high = LOWEST + bias, HIGHEST + bias
    kinds = [
        counts[special] - posinf - neginf,
        posinf,
        neginf,
        zero,
        counts[:low].sum() - zero,
        counts[high:special].sum(),
    ]
    return torch.cat([counts[low:high], torch.stack(kinds)])


def _count(exponents: Tensor, length: int) -> Tensor:
    if is_on_cpu(exponents):  # on a GPU, bincount waits for the largest value
        return torch.bincount(exponents, minlength=length)
    counts = torch.zeros(length, dtype=torch.int64, device=exponents.device)
    return counts.scatter_add_(0, exponents.long(), torch.ones_like(exponents, dtype=torch.int64))
