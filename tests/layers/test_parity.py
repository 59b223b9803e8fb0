"""Every layer computes the same bits in both styles."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from convtrain.layers import BY_CLASS, blocks, containers
from convtrain.models.functional import functionalize
from tests.conftest import slow_but
from tests.layers.cases import CASES, Case
from tests.layers.parity import DTYPES, Trace, check, differences, trace

SLOW = pytest.mark.slow
EVERY: list[Any] = [
    pytest.param(module, case, id=f"{module.__name__}-{i}")
    for module, cases in CASES.items()
    for i, case in enumerate(cases)
    if case.is_known_to(module)
]
TRAINABLE = [
    param
    for param in EVERY
    if any(True for _ in param.values[1].make(param.values[0]).parameters())
    and BY_CLASS[param.values[0]].twin is not containers.no_forward
]
FIRST_OF_EACH = [
    param if param.id.endswith("-0") else pytest.param(*param.values, id=param.id, marks=SLOW)
    for param in TRAINABLE
]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, on what it deprecates


@pytest.mark.parametrize("dtype", slow_but(DTYPES, torch.float32))
@pytest.mark.parametrize(("module", "case"), EVERY)
def test_outputs_gradients_and_buffers_are_the_same_bits(
    module: type[nn.Module], case: Case, dtype: torch.dtype
) -> None:
    verdict = check(BY_CLASS[module], case, [dtype])
    assert verdict.different == ()
    if BY_CLASS[module].twin is not containers.no_forward and dtype is not torch.bfloat16:
        assert verdict.dtypes == (dtype,)


@pytest.mark.parametrize(("module", "case"), FIRST_OF_EACH)
def test_twenty_steps_of_sgd_with_momentum_lead_to_the_same_bits(
    module: type[nn.Module], case: Case
) -> None:
    torch.manual_seed(0)
    one = case.make(module)
    torch.manual_seed(0)
    other = functionalize(case.make(module))
    before = copy.deepcopy(one.state_dict())
    traces: list[Trace] = []
    for model in (one, other):
        optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9)
        for _ in range(20):
            optimizer.zero_grad()
            traced = trace(model, case, torch.float32)
            assert traced.error is None
            optimizer.step()
        traces.append(traced)
    assert not differences(*traces)
    assert not differences(Trace(one.state_dict()), Trace(other.state_dict()))
    assert any(not torch.equal(before[name], value) for name, value in one.state_dict().items())


def _largest_difference(one: Any, other: Any) -> float:
    pairs = zip(_flat(one), _flat(other), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def _flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for item in value for t in _flat(item)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "index"),
    [
        (nn.Conv2d, 3),
        (nn.BatchNorm2d, 0),
        (nn.MaxPool2d, 1),
        (nn.GELU, 1),
        (nn.Linear, 0),
        (nn.GroupNorm, 0),
        (nn.LSTM, 0),
        (nn.MultiheadAttention, 3),
        (nn.TransformerEncoderLayer, 1),
        (nn.CrossEntropyLoss, 3),
        (nn.Sequential, 0),
        (blocks.Residual, 1),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_compiled_it_computes_what_torch_nn_does(module: type[nn.Module], index: int) -> None:
    case = CASES[module][index]
    torch.manual_seed(0)
    one = case.make(module).eval()
    other: Any = torch.compile(functionalize(copy.deepcopy(one)))
    traces = [trace(model, case, torch.float32) for model in (one, other)]
    assert [traced.error for traced in traces] == [None, None]
    for name, expected in traces[0].tensors.items():
        found = traces[1].tensors.get(name, traces[1].tensors.get(_compiled(name)))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def _compiled(name: str) -> str:
    """torch.compile puts a prefix before a parameter's name."""
    words = name.split(" ")
    return " ".join([*words[:-1], f"_orig_mod.{words[-1]}"])
