"""Draws without memory: reproducible, independent, uniform."""

import numpy as np
import torch
from scipy import stats

from convtrain.data.randomness import derive_seed, permutation, uniforms


def uniform(keys: torch.Tensor, *numbers: int) -> torch.Tensor:
    return uniforms(keys, numbers)[0]


def test_a_draw_depends_on_its_key_and_purpose_alone() -> None:
    keys = torch.tensor([5, 3, 5, 9])
    drawn = uniform(keys, 1, 2, 3)
    assert drawn[0] == drawn[2]
    assert torch.equal(drawn[1:2], uniform(torch.tensor([3]), 1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0), (2, 1, 3)):
        assert not torch.equal(drawn, uniform(keys, *other))


def test_draws_are_uniform_and_uncorrelated() -> None:
    keys = torch.arange(20_000)
    first, second = uniform(keys, 7, 0, 1).numpy(), uniform(keys, 7, 1, 1).numpy()
    assert first.min() >= 0
    assert first.max() < 1
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03


def test_a_permutation_has_every_index_once_and_changes_with_the_epoch() -> None:
    orders = [permutation(1000, 1, epoch) for epoch in range(3)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(1000))
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[1], permutation(1000, 1, 1))


def test_seeds_differ_where_any_number_differs() -> None:
    seeds = {derive_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
