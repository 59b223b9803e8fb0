"""Stateless randomness: every random number is a hash of its seed, epoch, image and purpose.

A number depends on no draw before it, so resuming, another number of workers or another validation
schedule changes nothing. The mixing function is SplitMix64's (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", 2014).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def derive_seed(*numbers: int) -> int:
    """Hash integers, in order, to one of 63 bits."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK)) + _STEP & _MASK
        state = (state ^ state >> 30) * _FIRST & _MASK
        state = (state ^ state >> 27) * _SECOND & _MASK
        state ^= state >> 31
    return state >> 1


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the CPU's generator and the one of ``device``.

    ``torch.manual_seed`` also seeds all other devices. For an uninitialised one it stores the call
    stack, which takes a tenth of a small network's step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def permutation(count: int, *numbers: int) -> Tensor:
    """Return a random order of ``range(count)``, int64, that depends on ``numbers`` alone."""
    generator = torch.Generator().manual_seed(derive_seed(*numbers))
    return torch.randperm(count, generator=generator)


def uniforms(keys: Tensor, *draws: Sequence[int]) -> Tensor:
    """Return numbers in [0, 1), float64 of shape (draws, *keys.shape), equal on every device.

    Args:
        keys: int64 of any shape, such as the indices of images.
        draws: integers that a draw depends on besides the key, such as seed, epoch and purpose.
    """
    spread = keys * _signed(_STEP)
    state = torch.stack([spread + derive_seed(*numbers) for numbers in draws])
    state = (state ^ _shift(state, 30)) * _signed(_FIRST)
    state = (state ^ _shift(state, 27)) * _signed(_SECOND)
    state = state ^ _shift(state, 31)
    return _shift(state, 11).double() * 2.0**-53


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _shift(state: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift keeps the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
