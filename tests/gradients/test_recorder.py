"""The recorder in every case in which recorders go wrong, against gradients taken by hand."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import convtrain
from convtrain.gradients import load
from convtrain.gradients.recorder import Recorder
from convtrain.gradients.schedule import Plan, Sampling
from tests.gradients.harness import DEBUG, EVERY, FULL, NORMS, STATS, Module, by_hand, fit, squares

NETWORK = [
    {"Conv2d": {"out_channels": 4, "kernel_size": 3}},
    "BatchNorm2d",
    {"ReLU": {"inplace": True}},
    {"Dropout": {"p": 0.3}},
    "Flatten",
    {"Linear": {"out_features": 5}},
]
SHAPE = (2, 8, 8)
CLOSE: dict[str, float] = {"rtol": 3e-6, "atol": 1e-9}


def network(style: Any = "nn", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return convtrain.build_model(NETWORK, SHAPE, style=style)


def images(count: int, *, seed: int = 1, size: int = 6) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(size, *SHAPE, generator=random) for _ in range(count)]


def steps_of(run: Path) -> list[dict[str, Any]]:
    return load(run, "steps").to_pylist()


def column(run: Path, name: str, what: str = "norm") -> dict[int, float]:
    """Return what is recorded of a parameter, by step."""
    rows = load(run).to_pylist()
    return {row["step"]: row[what] for row in rows if row["parameter"] == f"model.{name}"}


def assert_close(found: Any, expected: Any, **tolerance: float) -> None:
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    torch.testing.assert_close(found, expected, **{**CLOSE, **tolerance}, equal_nan=True)


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize(
    ("accumulate", "clip"),
    [(1, {}), (2, {}), (1, {"norm": 0.05}), (1, {"norm": 1e6}), (2, {"value": 0.01})],
    ids=["plain", "accumulated", "clipped by norm", "not clipped", "clipped by value"],
)
def test_a_row_for_every_real_step(
    style: str, accumulate: int, clip: dict[str, float], tmp_path: Path
) -> None:
    """Five micro-batches leave a remainder when two make a step."""
    model, batches = network(style), images(5)
    ((algorithm, value),) = clip.items() or [(None, None)]
    fit(
        Module(copy.deepcopy(model), batches, squares),
        tmp_path,
        STATS,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=value,
        gradient_clip_algorithm=algorithm,
    )
    expected = list(
        by_hand(
            model,
            batches,
            accumulate=accumulate,
            clip_norm=clip.get("norm"),
            clip_value=clip.get("value"),
        )
    )
    rows = steps_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, len(expected) + 1))
    assert len(expected) == (5 if accumulate == 1 else 3)
    for row, step in zip(rows, expected, strict=True):
        assert_close(row["norm"], step.total)
        assert_close(row["clipped_norm"], step.clipped)
        assert_close(row["clip_coefficient"], step.clipped / step.total)
        assert_close(row["loss"], step.loss)
        assert (row["micro_batches"], row["lr"]) == (step.micro_batches, [0.1])
        assert (row["nonfinite"], row["first_nonfinite"], row["skipped"]) == (0, None, False)
        assert row["loss_scale"] is None
    for name in expected[0].gradients:
        gradients = [step.gradients[name].double() for step in expected]
        for what, formula in FORMULAS.items():
            assert_close(list(column(tmp_path, name, what).values()), [formula(g) for g in gradients])
        ratios = list(column(tmp_path, name, "update_ratio").values())
        assert_close(ratios, [step.ratios[name] for step in expected], rtol=2e-4)
        cosines = list(column(tmp_path, name, "cosine").values())
        pairs = zip(gradients[1:], gradients, strict=False)
        angles = [F.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs]
        assert_close(cosines, [torch.nan, *angles], rtol=2e-4, atol=1e-6)


FORMULAS = {
    "norm": lambda g: g.norm(),
    "mean": lambda g: g.mean(),
    "deviation": lambda g: g.std(correction=0),
    "minimum": lambda g: g.min(),
    "maximum": lambda g: g.max(),
    "zeros": lambda g: (g == 0).double().mean(),
}
