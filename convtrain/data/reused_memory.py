"""Memory for batches, which is used again when nothing refers to the tensor in it any longer.

The C library returns a block above 32 MiB to the kernel as soon as it is free, and the kernel then
clears each page of the next block: for a batch of 64 images of 224x224 that takes twice as long as
to normalise them.
"""

import math
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

RETURNED_BYTES = 32 << 20  # M_MMAP_THRESHOLD of glibc can be no larger


class ReusedMemory:
    """Large float32 tensors on the CPU."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def empty(self, shape: Sequence[int]) -> Tensor:
        """Return a tensor with any content, whose memory no other tensor has."""
        count = math.prod(shape)
        if count * torch.float32.itemsize <= RETURNED_BYTES:
            return torch.empty(*shape, device="cpu")
        while self._free and len(self._free[-1]) < count:
            self._free.pop()
        memory = self._free.pop() if self._free else torch.empty(count, device="cpu")
        # The storage of the tensor, and so every view of it, keeps this array alive.
        array = memory.numpy()
        weakref.finalize(array, self._free.append, memory).atexit = False
        return torch.from_numpy(array)[:count].view(*shape)
