"""Memory of large batches is used again when they are gone, and never before."""

import torch

from convtrain.data.batches import Normalisation
from convtrain.data.reused_memory import RETURNED_BYTES, ReusedMemory

SHAPE = (RETURNED_BYTES // 4 // 1024 + 64, 1024)


def test_the_memory_of_a_tensor_is_used_again_when_no_view_of_it_is_left() -> None:
    memory = ReusedMemory()
    first = memory.empty(SHAPE)
    place, row = first.data_ptr(), first.fill_(1.0)[5]
    del first
    second = memory.empty(SHAPE).fill_(2.0)
    assert second.data_ptr() != place
    assert row.unique().tolist() == [1.0]
    del row
    smaller = memory.empty((SHAPE[0], 1023))
    assert (smaller.data_ptr(), smaller.shape) == (place, (SHAPE[0], 1023))
    larger = memory.empty((SHAPE[0] + 1, 1024))
    assert larger.data_ptr() not in (place, second.data_ptr())
    assert second.unique().tolist() == [2.0]


def test_gradients_of_a_batch_that_is_gone_are_right() -> None:
    memory, weight = ReusedMemory(), torch.ones(1024, requires_grad=True)
    loss = (memory.empty(SHAPE).fill_(3.0) * weight).sum()  # autograd alone holds the batch now
    memory.empty(SHAPE).fill_(0.0)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.unique().tolist() == [3.0 * SHAPE[0]]


def test_large_batches_are_normalised_to_the_bits_of_small_ones() -> None:
    normalise = Normalisation([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    pixels = torch.arange(256, dtype=torch.uint8).repeat(64 * 3 * 172).view(64, 3, 172, 256)
    for given in (pixels, pixels.float() / 255):
        for _ in range(2):
            images = normalise(given)
            assert images.nbytes > RETURNED_BYTES
            assert images[9:10].equal(normalise(given[9:10]))
