"""The numbers that describe a tensor, against the same in float64 or counted one by one."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.distributed.tensor import Shard, distribute_tensor

from convtrain.gradients.record.histograms import BINS, HIGHEST, KINDS, LOWEST, histogram
from convtrain.gradients.record.statistics import (
    NAMES,
    STATISTICS,
    Statistic,
    checksums,
    describe,
    is_finite,
    largest,
)
from convtrain.gradients.record.zero_filters import zero_filters
from convtrain.training.norms import gradient_norms, total_norm
from docs.generate.gradients import PAGE, page


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


EXACT = [NAMES.index(name) for name in ("minimum", "maximum", "zero_fraction")]
TENSORS = {
    "normal": normal(7, 3, 5, 5),
    "large": normal(20_000, seed=1) * 1e-4 + 3e-5,
    "sparse": torch.where(normal(999, seed=2) > 1, normal(999), 0.0),
    "one value": torch.tensor(-2.5),
    "double": normal(300, seed=3).double(),
    "half": normal(300, seed=4).bfloat16(),
    "complex": torch.complex(normal(40, seed=5), normal(40, seed=6)),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda statistic: statistic.name)
def test_a_statistic_is_what_its_definition_says(statistic: Statistic, tensor: Tensor) -> None:
    """The definition, which the documentation shows, is evaluated by NumPy in float64."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    x = real.double().numpy().ravel()
    with np.errstate(invalid="ignore"):  # such as a moment of one value, divided by its variance
        expected = eval(statistic.definition, {"np": np, "x": x})
    found = describe([tensor])[0, NAMES.index(statistic.name)].item()
    assert found == pytest.approx(expected, rel=3e-6, abs=1e-7 * abs(x).max(), nan_ok=True)


def test_an_empty_tensor_has_the_norm_zero_and_no_other_statistic() -> None:
    norm, *others = describe([torch.empty(0, 3)])[0].tolist()
    assert norm == 0
    assert all(map(math.isnan, others))


@pytest.mark.parametrize("count", [1, 100, 16384, 20_000, 2_359_296])
def test_a_norm_is_right_to_float32_rounding(count: int) -> None:
    values = normal(count) * 1e-3
    (norm,) = gradient_norms([values])
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(values.double().norm().item(), rel=2e-7)


def test_the_total_is_the_norm_of_all_values() -> None:
    tensors = [normal(30, seed=1), normal(200, 100, seed=2), normal(3, 5, seed=3)]
    together = torch.cat([tensor.flatten() for tensor in tensors]).double().norm().item()
    assert total_norm(gradient_norms(tensors)).item() == pytest.approx(together, rel=2e-7)
    assert gradient_norms([]).shape == (0,)


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (128, 32, 3, 3)], ids=str)
def test_the_layout_does_not_matter(shape: tuple[int, ...]) -> None:
    """Counts and extremes are the same bits; sums, in another order, the same to rounding."""
    tensor = normal(*shape)
    padded = torch.zeros(shape[0], shape[1], shape[2], 2 * shape[3])
    padded[..., ::2] = tensor
    views = {
        "channels last": tensor.contiguous(memory_format=torch.channels_last),
        "strided": padded[..., ::2],
        "transposed": tensor.transpose(0, 1).contiguous().transpose(0, 1),
    }
    plain, counts = describe([tensor])[0], histogram(tensor)
    for view in views.values():
        described = describe([view])[0]
        assert torch.equal(described[EXACT], plain[EXACT])
        torch.testing.assert_close(described, plain, rtol=5e-7, atol=2e-9)
        assert torch.equal(histogram(view), counts)
        torch.testing.assert_close(gradient_norms([view])[0], plain[0], rtol=2e-7, atol=0)


def counted(values: list[float]) -> dict[str, Any]:
    """Count by hand what :func:`histogram` should."""
    found: dict[Any, int] = dict.fromkeys([*range(LOWEST, HIGHEST), *KINDS], 0)
    for value in values:
        if math.isnan(value):
            found["nan"] += 1
        elif math.isinf(value):
            found["posinf" if value > 0 else "neginf"] += 1
        elif value == 0:
            found["zero"] += 1
        else:
            exponent = math.frexp(value)[1] - 1
            small, large = exponent < LOWEST, exponent >= HIGHEST
            found["underflow" if small else "overflow" if large else exponent] += 1
    return found


EDGES = [
    0.0, -0.0, 1.0, -1.0, 2.0, math.nextafter(2.0, 0), 3.9, 1e-45, 2.0**LOWEST, 2.0 ** (LOWEST - 1),
    2.0**HIGHEST, 4095.9, 1e38, math.inf, -math.inf, math.nan, -math.nan,
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "values",
    [EDGES, [], [math.nan] * 5, normal(5000).tolist(), [1e-300, 1e300, 5.0]],
    ids=["edges", "empty", "all NaN", "normal", "beyond float32"],
)
def test_a_histogram_counts_every_value_once(values: list[float], dtype: Any) -> None:
    tensor = torch.tensor(values, dtype=dtype)
    expected = counted(tensor.tolist())
    assert histogram(tensor).tolist() == list(expected.values())
    assert len(expected) == BINS + len(KINDS)


def test_counts_are_exact_where_float32_could_not_count() -> None:
    values = torch.zeros(2**24 + 2)
    values[-1] = 1.0
    counts = histogram(values).tolist()
    assert counts[BINS + KINDS.index("zero")] == 2**24 + 1
    assert (counts[-LOWEST], sum(counts)) == (1, len(values))


def test_whatever_is_not_finite_shows_in_the_largest_value() -> None:
    tensors = [torch.tensor([1e30, -2e30]), torch.tensor([1.0, torch.nan]), torch.empty(0)]
    assert torch.isfinite(largest(tensors)).tolist() == [True, False, True]
    assert [is_finite(tensor) for tensor in tensors] == [True, False, True]
    assert largest(tensors[:1]).item() == pytest.approx(2e30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_a_checksum_changes_with_the_last_bit_of_one_value(dtype: Any) -> None:
    tensor = normal(4, 3, 5, 5).to(dtype)
    before = checksums([tensor, tensor.clone()])
    assert before[0] == before[1]
    view = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    (value,) = view.flatten()[77:78]
    view.view(-1)[77] = torch.nextafter(value, torch.full_like(value, 9.0))
    assert checksums([tensor])[0] != before[0]


def test_filters_without_a_gradient_are_found() -> None:
    gradient = normal(6, 3, 3, 3)
    gradient[[1, 4]] = 0
    assert zero_filters(gradient).nonzero().flatten().tolist() == [1, 4]


def test_a_sharded_gradient_counts_as_a_whole(tmp_path: Any) -> None:
    """In a world of one process; test_devices.py has two."""
    store = distributed.FileStore(str(tmp_path / "meeting"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        whole = normal(6, 4)
        sharded = distribute_tensor(whole, mesh, [Shard(0)])
        norms = gradient_norms([sharded, whole])
        assert type(norms) is Tensor
        assert norms[0] == norms[1]
        assert torch.equal(describe([sharded]), describe([whole]))
    finally:
        distributed.destroy_process_group()


def test_the_documentation_lists_the_statistics() -> None:
    written = PAGE.read_text()
    assert all(f"| `{s.name}` | `{s.definition}` |" in written for s in STATISTICS)
    assert written == page(), "write it with python -m docs.generate gradients"
