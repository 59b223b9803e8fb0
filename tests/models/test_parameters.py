"""Parametrizations and pruning: declared by pattern, the same bits in both styles."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    parameters_to_vector,
    vector_to_parameters,
)

import convtrain
from convtrain.errors import NetworkError

LAYERS: list[Any] = [
    {"Conv2d": {"out_channels": 4, "kernel_size": 3}},
    "ReLU",
    "Flatten",
    {"Linear": {"out_features": 5}},
]
SHAPE = (2, 6, 6)


def pair(**options: Any) -> list[nn.Module]:
    models = []
    for style in ("nn", "functional"):
        torch.manual_seed(0)
        models.append(convtrain.build_model(LAYERS, SHAPE, style=style, **options))
    return models


def train(model: nn.Module, steps: int = 5) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(4, *SHAPE)).square().mean().backward()
        optimizer.step()


OPTIONS: dict[str, dict[str, Any]] = {
    "weight_norm": {"parametrize": {"*.weight": "weight_norm"}},
    "spectral_norm": {"parametrize": {"linear*.weight": "spectral_norm"}},
    "orthogonal": {"parametrize": {"linear*.weight": {"orthogonal": {"orthogonal_map": "cayley"}}}},
    "pruning": {"prune": {"conv*.weight": {"l1_unstructured": {"amount": 0.5}}}},
    "structured pruning": {
        "prune": {"*.weight": {"ln_structured": {"amount": 1, "n": 2, "dim": 0}}}
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_both_styles_train_to_the_same_bits(options: dict[str, Any]) -> None:
    tree, explicit = pair(**options)
    train(tree)
    train(explicit)
    left, right = tree.state_dict(), explicit.state_dict()
    assert list(left) == list(right)
    assert all(torch.equal(left[key], right[key]) for key in left)
    images = torch.randn(3, *SHAPE)
    assert torch.equal(tree.eval()(images), explicit.eval()(images))


def test_an_orthogonal_weight_stays_orthogonal_in_training() -> None:
    tree, _ = pair(**OPTIONS["orthogonal"])
    train(tree)
    weight = tree.get_submodule("linear_1").weight
    assert isinstance(weight, torch.Tensor)
    torch.testing.assert_close(weight @ weight.T, torch.eye(5), atol=1e-5, rtol=0)


def test_a_spectral_norm_stays_one_in_training() -> None:
    tree, _ = pair(**OPTIONS["spectral_norm"])
    train(tree, steps=30)
    weight = tree.eval().get_submodule("linear_1").weight
    assert isinstance(weight, torch.Tensor)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=0.05)


def test_what_is_pruned_stays_zero_in_training() -> None:
    tree, _ = pair(**OPTIONS["pruning"])
    layer: Any = tree.get_submodule("conv2d_1")  # pruning computes its weight
    before = layer.weight == 0
    assert before.float().mean() == 0.5
    train(tree)
    tree(torch.randn(1, *SHAPE))
    assert torch.equal(layer.weight == 0, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parametrize": {"*.weight": "weightnorm"}}, "did you mean weight_norm"),
        ({"parametrize": {"nothing": "weight_norm"}}, "matches no parameter"),
        ({"parametrize": {"*.bias": "orthogonal"}}, r"conv2d_1\.bias: "),
        ({"prune": {"*.weight": {"l1_unstructured": {"amount": 2.5}}}}, r"conv2d_1\.weight: "),
        ({"prune": {"*.weight": "l1_unstructured"}}, "amount"),
    ],
)
def test_a_wrong_declaration_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message) as raised:
        convtrain.build_model(LAYERS, SHAPE, **options)
    assert len(str(raised.value).splitlines()) == 1


def test_torchs_utilities_work_on_the_explicit_parameters() -> None:
    tree, explicit = pair()
    images = torch.randn(4, *SHAPE)
    vectors = []
    for model in (tree, explicit):
        model.zero_grad()
        model(images).square().sum().backward()
        total = clip_grad_norm_(model.parameters(), 0.5)
        clip_grad_value_(model.parameters(), 0.01)
        assert all(p.grad is not None and p.grad.abs().max() <= 0.01 for p in model.parameters())
        gradients = parameters_to_vector(p.grad for p in model.parameters())
        vectors.append((total, gradients, parameters_to_vector(model.parameters())))
    for left, right in zip(*vectors, strict=True):
        assert torch.equal(left, right)
    vector_to_parameters(torch.zeros_like(vectors[0][2]), explicit.parameters())
    assert not explicit(images).any()


def test_sync_batch_norm_is_a_switch_in_both_styles() -> None:
    from convtrain.models.build import build_network
    from convtrain.network.resolve import resolve_network

    network = resolve_network(["BatchNorm2d", "Flatten"], SHAPE)
    tree = build_network(network, style="nn", sync_batchnorm=True)
    assert isinstance(tree.get_submodule("batch_norm2d_1"), nn.SyncBatchNorm)
    explicit = build_network(network, style="functional", sync_batchnorm=True)
    images = torch.randn(4, *SHAPE)
    assert torch.equal(tree.eval()(images), explicit.eval()(images))
