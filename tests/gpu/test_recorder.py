"""The record on a GPU, against gradients that ``autograd.grad`` takes from a copy of the model."""

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import convtrain
from convtrain.gradients import load
from convtrain.pipeline import assemble, train_assembled
from tests.conftest import compose
from tests.gradients.harness import STATS, Module, fit, squares

NETWORK = [
    {"Conv2d": {"out_channels": 8, "kernel_size": 3}},
    "BatchNorm2d",
    {"ReLU": {"inplace": True}},
    "Flatten",
    {"Linear": {"out_features": 5}},
]
SHAPE, STEPS, SCALE = (3, 8, 8), 6, 2.0**10
TYPES = {"32": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class ByHand(pl.Callback):
    """Takes each batch's gradients from a copy of the model as it is before the step."""

    def __init__(self, precision: str) -> None:
        self.dtype, self.norms = TYPES[precision], list[dict[str, float]]()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Tensor, batch_idx: int
    ) -> None:
        model = copy.deepcopy(pl_module.model)
        torch.manual_seed(batch_idx)
        with torch.autocast("cuda", self.dtype, enabled=self.dtype is not None):
            loss = squares(model, batch)
        scale = SCALE if self.dtype is torch.float16 else 1.0
        named = dict(model.named_parameters())
        gradients = torch.autograd.grad(loss * scale, list(named.values()))
        self.norms.append(
            {n: (g.double() / scale).norm().item() for n, g in zip(named, gradients, strict=True)}
        )


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("clip", [None, 0.05], ids=["free", "clipped"])
@pytest.mark.parametrize("precision", TYPES)
def test_norms_are_those_of_autograd(
    precision: str, clip: float | None, fused: bool, style: Any, tmp_path: Path
) -> None:
    if precision != "32" and fused and clip:
        pytest.skip("Lightning refuses to clip where a fused optimiser takes the scale off")
    torch.manual_seed(0)
    model = convtrain.build_model(NETWORK, SHAPE, style=style)
    hand = ByHand(precision)
    options: dict[str, Any] = {"precision": precision}
    if precision == "16-mixed":
        plugin = pl.plugins.precision.MixedPrecision
        scaler = torch.amp.GradScaler("cuda", init_scale=SCALE)
        options = {"plugins": [plugin("16-mixed", "cuda", scaler=scaler)]}
    fit(
        Module(model, [torch.randn(6, *SHAPE) for _ in range(STEPS)], squares, fused=fused),
        tmp_path, STATS, accelerator="gpu", callbacks=[hand], gradient_clip_val=clip, **options,
    )  # fmt: skip
    rows = load(tmp_path, "steps").to_pylist()
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row, expected in zip(rows, hand.norms, strict=True):
        total = sum(norm**2 for norm in expected.values()) ** 0.5
        assert row["norm"] == pytest.approx(total, rel=1e-4)
        if clip:
            assert row["clipped_norm"] == pytest.approx(min(total, clip), rel=1e-4)
    for row in load(tmp_path, "parameters").to_pylist():
        name = row["parameter"].removeprefix("model.")
        expected_norm = hand.norms[row["step"] - 1][name]
        assert row["norm"] == pytest.approx(expected_norm, rel=1e-4, abs=1e-7)


class NoWaiting(pl.Callback):
    """Makes every call that waits for the GPU an error, from the fourth batch to the last but one.

    The first batches still choose kernels and allocate.
    """

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        batch = trainer.fit_loop.batch_idx
        if batch == 3:
            torch.cuda.set_sync_debug_mode("error")
        elif batch == trainer.num_training_batches - 1:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize("recorder", ["off", "norms", "stats", "full"])
def test_no_step_waits_for_the_gpu_between_two_log_entries(
    recorder: str, style: str, tmp_path: Path
) -> None:
    config = compose(
        "trainer=gpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1000", f"model={style}",
        f"recorder={recorder}", "recorder.flush_every_n_steps=1000", "augment=shift",
        "recorder.max_overhead=1", "callbacks.progress_bar=false", "data.drop_last=true",
        "recorder.tensors=null", "trainer.gradient_clip_val=1",
    )  # fmt: skip
    parts = assemble(config, tmp_path, callbacks=[NoWaiting()])
    assert train_assembled(parts)["steps"] > 10


def test_the_oracle_sees_a_wait() -> None:
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones(1, device="cuda").item()


def test_a_model_on_the_gpu_is_a_model(tmp_path: Path) -> None:
    """Both styles start with the same bits there, too."""
    models = []
    for style in ("nn", "functional"):
        torch.manual_seed(0)
        models.append(convtrain.build_model(NETWORK, SHAPE, style=style).cuda())
    images = torch.randn(4, *SHAPE, device="cuda")
    assert isinstance(models[0], nn.Module)
    assert torch.equal(models[0](images), models[1](images))
