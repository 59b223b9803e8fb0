"""Compiled, on one device or several: each way of training on GPUs ends with the same result."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import convtrain
from convtrain import pipeline
from convtrain.training.checkpoint_file import load_checkpoint
from tests.conftest import REPOSITORY, compose
from tests.gpu.same import assert_same_weights

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
        "network.layers=[Flatten, {Linear: {out_features: 16}}, ReLU, "
        "{Linear: {out_features: 10}}]",
    )  # fmt: skip
    plain = pipeline.train(compose(*settings), tmp_path / "plain")
    compiled = pipeline.train(compose(*settings, f"trainer.compile={mode}"), tmp_path / "compiled")
    assert compiled["train/loss_epoch"] == pytest.approx(plain["train/loss_epoch"], rel=1e-3)


STRATEGY = (*SMALL, "network=lstm", "trainer.gradient_clip_val=1",
            "callbacks.checkpoint.test_with=best")  # fmt: skip
WAYS = [(strategy, devices) for strategy in ("ddp", "fsdp") for devices in (1, 2)]


def command(run: Path, *overrides: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "train.py", *overrides], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def train_and_resume(strategy: str, devices: int, run: Path) -> list[dict[str, Any]]:
    first = command(
        run, *STRATEGY[1:], f"trainer={strategy}", f"trainer.devices={devices}", "recorder=full",
        f"hydra.run.dir={run}",
    )  # fmt: skip
    return [first, command(run, f"resume={run}", "trainer.max_epochs=3")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return, for each way that this machine has the GPUs for, its two results to come."""
    folder, found = tmp_path_factory.mktemp("ways"), torch.cuda.device_count()
    with ThreadPoolExecutor() as pool:
        yield {
            (strategy, devices): pool.submit(
                train_and_resume, strategy, devices, folder / f"{strategy}{devices}"
            )
            for strategy, devices in WAYS
            if devices <= found
        }


@pytest.mark.parametrize(("strategy", "devices"), WAYS)
def test_a_strategy_trains_and_resumes(
    strategy: str, devices: int, trained: Any, tmp_path: Path
) -> None:
    if (strategy, devices) not in trained:
        pytest.skip(f"there are not {devices} GPUs")
    first, longer = trained[strategy, devices].result()
    alone = pipeline.train(compose(*STRATEGY, "recorder=off"), tmp_path)
    assert first["test/loss"] == pytest.approx(alone["test/loss"], rel=1e-2)
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
    assert_same_weights(whole, again)


AVERAGED = {
    "32": ("network=convnet",),
    "16-mixed": ("network=convnet", "trainer.precision=16-mixed"),
    "recurrent": ("network=lstm",),  # cuDNN keeps its weights in one piece of memory
    "CUDA graphs": ("trainer.compile=reduce-overhead", "data.drop_last=true"),
}


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize("more", AVERAGED.values(), ids=AVERAGED)
def test_an_average_is_that_of_the_weights_after_each_step(
    more: tuple[str, ...], style: str, tmp_path: Path
) -> None:
    config = compose(
        *SMALL, *more, f"model={style}", "trainer.ema=0.5", "trainer.deterministic=true",
        "callbacks.checkpoint.every_n_steps=1", "callbacks.checkpoint.keep_last=99",
    )  # fmt: skip
    result = pipeline.train(config, tmp_path)
    folder = tmp_path / "checkpoints"
    before, *later = map(
        load_checkpoint, [*sorted(folder.glob("step*.ckpt")), folder / "last.ckpt"]
    )
    for saved in later:
        n, old = saved["average"]["updates"], before["state_dict"]
        assert n - before["average"]["updates"] in (0, 1)
        if n > before["average"]["updates"]:
            share = 1 - min(0.5, (1 + n) / (10 + n))
            for name, trained in saved["average"]["trained"].items():
                expected = old[name].lerp(trained, share)
                torch.testing.assert_close(saved["state_dict"][name], expected)
        before = saved
    assert convtrain.evaluate(tmp_path)["metrics"]["test/loss"] == result["test/loss"]
