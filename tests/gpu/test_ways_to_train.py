"""Compiled, on one device or several: each way of training on GPUs ends with the same result."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from convtrain import pipeline
from convtrain.training.checkpoint_file import load_checkpoint
from tests.conftest import REPOSITORY, compose

SMALL = (
    "trainer=gpu", "callbacks.progress_bar=false", "trainer.max_epochs=2", "data.limit=320",
    "data.batch_size=64",
)  # fmt: skip


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
@pytest.mark.parametrize("style", ["nn", "functional"])
def test_a_compiled_model_learns_what_another_learns(style: str, mode: str, tmp_path: Path) -> None:
    if style == "nn" and mode != "reduce-overhead":
        pytest.skip("one style a mode; compiling takes its time")
    settings = (
        *SMALL, f"model={style}", "trainer.limit_val_batches=0", "trainer.limit_test_batches=0",
        "data.drop_last=true", "recorder=norms",
        "network.layers=[{Conv2d: {out_channels: 8, kernel_size: 3}}, ReLU, Flatten, "
        "{Linear: {out_features: 10}}]",
    )  # fmt: skip
    plain = pipeline.train(compose(*settings), tmp_path / "plain")
    compiled = pipeline.train(compose(*settings, f"trainer.compile={mode}"), tmp_path / "compiled")
    assert compiled["train/loss_epoch"] == pytest.approx(plain["train/loss_epoch"], rel=1e-3)


def command(run: Path, *overrides: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "train.py", *overrides], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_strategy_trains_and_resumes(strategy: str, devices: int, tmp_path: Path) -> None:
    if torch.cuda.device_count() < devices:
        pytest.skip(f"there are not {devices} GPUs")
    run = tmp_path / "run"
    settings = (
        *SMALL[1:], f"trainer={strategy}", f"trainer.devices={devices}", "recorder=full",
        "network=lstm", f"hydra.run.dir={run}", "trainer.gradient_clip_val=1",
        "callbacks.checkpoint.test_with=best",
    )  # fmt: skip
    first = command(run, *settings)
    alone = pipeline.train(
        compose(*SMALL, "network=lstm", "recorder=off", "trainer.gradient_clip_val=1",
                "callbacks.checkpoint.test_with=best"),
        tmp_path / "alone",
    )  # fmt: skip
    assert first["test/loss"] == pytest.approx(alone["test/loss"], rel=1e-2)
    longer = command(run, f"resume={run}", "trainer.max_epochs=3")
    assert longer["epochs"] == 3
    assert longer["train/loss_epoch"] < first["train/loss_epoch"]


@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed", "64"])
def test_every_precision_trains_and_goes_on_to_the_same_bits(
    precision: str, tmp_path: Path
) -> None:
    settings = (
        *SMALL, f"trainer.precision={precision}", "trainer.deterministic=true",
        "callbacks.checkpoint.every_n_steps=1", "callbacks.checkpoint.keep_last=99",
    )  # fmt: skip
    whole, again = tmp_path / "whole", tmp_path / "again"
    expected = pipeline.train(compose(*settings), whole)
    shutil.copytree(whole, again)
    for stale in [again / "result.json", *(again / "checkpoints").glob("*.ckpt")]:
        stale.unlink()
    shutil.copy(whole / "checkpoints" / "step000007.ckpt", again / "checkpoints" / "last.ckpt")
    config = compose(*settings).model_copy(update={"resume": str(again)})
    assert pipeline.train(config, again)["test/loss"] == expected["test/loss"]
    ends = [load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (whole, again)]
    for name, tensor in ends[0]["state_dict"].items():
        assert torch.equal(tensor, ends[1]["state_dict"][name]), name
