"""The order in which an epoch draws the training images.

A draw is an image's index, plus 2^32 for each time that it may have been drawn before in the epoch.
Random numbers depend on the draw, so that an image is augmented anew each time.
"""

from typing import TypeVar

import torch
from torch import Tensor

from convtrain.data.randomness import permutation, uniforms

REPEATED = 1 << 32
TURNS = 10  # a number of random numbers, like those of ``convtrain.data.augment.OPERATIONS``

Index = TypeVar("Index", int, Tensor)


def image_of(draw: Index) -> Index:
    """Return the index of a draw's image."""
    return draw & (REPEATED - 1)


def epoch_order(labels: Tensor, seed: int, epoch: int, *, balanced: bool) -> Tensor:
    """Return the draws of an epoch, as many as there are images; int64 (N,) on the CPU.

    ``balanced`` draws each class equally often, give or take one draw. A class's images take turns:
    it draws all of them, in random order, before it draws one again, also from epoch to epoch.

    Args:
        labels: class indices, int64 (N,); any labels (N, ...) if not ``balanced``.
    """
    count = len(labels)
    order = permutation(count, seed, epoch)
    return _balanced(labels.cpu(), seed, epoch)[order] if balanced else order


def _balanced(labels: Tensor, seed: int, epoch: int) -> Tensor:
    count, sizes = len(labels), labels.unique(return_counts=True)[1].tolist()
    draws = []
    for turn, members in enumerate(labels.argsort(stable=True).split(sizes)):
        size = len(members)
        # These floors add up to the number of images, over all classes and all epochs.
        first, end = ((at * count + turn) // len(sizes) for at in (epoch, epoch + 1))
        rounds = torch.arange(first // size, -(-end // size)).unsqueeze(1)
        turns = uniforms(members + REPEATED * rounds, (seed, TURNS))[0].argsort(stable=True)
        drawn = (members[turns] + REPEATED * (rounds - first // size)).flatten()
        skipped = first % size
        draws.append(drawn[skipped : skipped + end - first])
    return torch.cat(draws)
