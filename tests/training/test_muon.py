"""Muon for a whole network, against torch's own Muon and AdamW on reshaped copies."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim import Muon as MatrixMuon

from convtrain.config.schema import Optimizer
from convtrain.forecast import make_model_on_meta
from convtrain.training.checkpoint_file import load_checkpoint
from tests.conftest import REPOSITORY, Train, compose

MUON = {
    "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "eps": 1e-7,
    "ns_coefficients": [3.4445, -4.775, 2.0315], "ns_steps": 4, "adjust_lr_fn": "match_rms_adamw",
}  # fmt: skip
ADAMW: dict[str, Any] = {"lr": 0.01, "betas": [0.8, 0.9], "eps": 1e-9, "weight_decay": 0.05}
SETTINGS = {"name": "muon", **MUON, **{f"adamw_{key}": value for key, value in ADAMW.items()}}
NETWORK = nn.Sequential(
    nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 1, 1),
    nn.Flatten(), nn.Linear(4, 3), nn.LayerNorm((3,)),
)  # fmt: skip
STEPS = 5


def build(params: Any, **runtime: object) -> torch.optim.Optimizer:
    made = TypeAdapter(Optimizer).validate_python(SETTINGS).build(params=params, **runtime)
    assert isinstance(made, torch.optim.Optimizer)
    return made


def gradients(step: int, like: list[nn.Parameter]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator).to(p.dtype) for p in like]


def expected() -> list[Tensor]:
    """Train by hand: the filters as matrices, the rest by AdamW."""
    network = copy.deepcopy(NETWORK)
    params = list(network.parameters())
    copies = [nn.Parameter(p.detach().flatten(1) if p.ndim > 1 else p.detach()) for p in params]
    is_matrix = [p.ndim > 1 and min(p.shape) > 1 for p in copies]  # Conv2d(6, 1, 1) is a row
    muon = MatrixMuon([p for p, one in zip(copies, is_matrix, strict=True) if one], **MUON)  # type: ignore[arg-type]
    adamw = AdamW([p for p, one in zip(copies, is_matrix, strict=True) if not one], **ADAMW)
    for step in range(STEPS):
        for p, gradient in zip(copies, gradients(step, params), strict=True):
            p.grad = gradient.view(p.shape)
        muon.step()
        adamw.step()
    return [c.detach().view(p.shape) for c, p in zip(copies, params, strict=True)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("fused", [False, True])
def test_filters_are_matrices_and_vectors_have_adamw(layout: Any, fused: bool) -> None:
    network = copy.deepcopy(NETWORK).to(memory_format=layout)
    params = list(network.parameters())
    optimizer = build(params, fused=fused)
    for step in range(STEPS):
        for p, gradient in zip(params, gradients(step, params), strict=True):
            p.grad = gradient.contiguous(memory_format=layout) if p.ndim == 4 else gradient
        optimizer.step()
        if step == 2:  # go on with another optimiser that has loaded the state
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = build(params, fused=fused)
            optimizer.load_state_dict(saved)
    for p, wanted in zip(params, expected(), strict=True):
        # The fused kernel rounds otherwise; match_rms_adamw's product with lr may, too.
        tolerance = {"rtol": 1e-5, "atol": 1e-7} if fused else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(p.detach(), wanted, **tolerance)
    assert params[0].is_contiguous(memory_format=layout)


def test_groups_keep_their_own_rates_and_decay() -> None:
    matrix, vector, other = (nn.Parameter(torch.ones(shape)) for shape in ((3, 4), (3,), (2, 2, 2)))
    groups = build(
        [{"params": [matrix, vector], "weight_decay": 0.0}, {"params": [other], "lr": 1}]
    )
    seen = [(g["params"], g["lr"], g["weight_decay"]) for g in groups.param_groups]
    assert [(lr, decay) for _, lr, decay in seen] == [(0.05, 0.0), (0.01, 0.0), (1, 0.1)]
    assert [params[0] is p for (params, *_), p in zip(seen, (matrix, vector, other), strict=True)]


def test_both_styles_train_to_the_same_bits(train: Train, tmp_path: Path) -> None:
    weights = []
    for style in ("functional", "nn"):
        train("optimizer=muon", "scheduler=linear", "data.limit=192", "logger=none", "recorder=off",
              f"model={style}", "trainer.channels_last=true", name=style)  # fmt: skip
        weights.append(load_checkpoint(tmp_path / style / "checkpoints/last.ckpt")["state_dict"])
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", sorted(path.stem for path in (REPOSITORY / "configs/network").glob("*.yaml"))
)
def test_every_shipped_network_can_be_trained(network: str) -> None:
    colour = ("data=synthetic", "data.shape=[3,64,64]", "data.mean=[0,0,0]", "data.std=[1,1,1]")
    config = compose(f"network={network}", "optimizer=muon", "loss=sum", *colour)
    params = list(make_model_on_meta(config).parameters())
    for p in params:
        p.grad = torch.empty_like(p)
    optimizer = config.optimizer.build(params=params)
    optimizer.step()
    assert len(optimizer.state) == len(params)
