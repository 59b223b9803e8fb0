"""Weights that are divided over processes: they train, are saved, resumed, tested and drawn."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from convtrain import assembly, pipeline
from convtrain.errors import ConfigError
from convtrain.gradients.record.histograms import histogram
from convtrain.gradients.record.statistics import describe
from convtrain.gradients.record.zero_filters import zero_filters
from convtrain.training.checkpoint_file import load_checkpoint, save_checkpoint
from convtrain.training.norms import gradient_norms
from convtrain.training.sharding import divided_like, gathered, load_weights
from tests.conftest import REPOSITORY, compose


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    """Yield a mesh of this process alone: what it divides are DTensors all the same."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/m", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def divided(mesh: Any) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    fully_shard(model, mesh=mesh)
    model(torch.randn(5, 3, 6, 6)).square().sum().backward()
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return model


def test_what_reads_a_divided_tensor_gives_an_ordinary_one(mesh: Any) -> None:
    model = divided(mesh)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    plain = [gathered(gradient) for gradient in gradients]
    for measure in (gradient_norms, describe):
        assert type(measure(gradients)) is torch.Tensor
        assert torch.equal(measure(gradients), measure(plain))
    assert torch.equal(histogram(gradients[0]), histogram(plain[0]))
    assert zero_filters(gradients[0]).numpy().tolist() == [False] * 4


def test_whole_weights_are_loaded_into_a_divided_model(mesh: Any, tmp_path: Path) -> None:
    model = divided(mesh)
    wanted = {name: torch.randn_like(gathered(t)) if t.is_floating_point() else t + 1
              for name, t in model.state_dict().items()}  # fmt: skip
    save_checkpoint(wanted, tmp_path / "whole.ckpt")
    load_weights(model, load_checkpoint(tmp_path / "whole.ckpt"))
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(gathered(tensor), wanted[name])
    with pytest.raises(RuntimeError, match=r"0\.weight"):
        load_weights(model, {name: t for name, t in wanted.items() if name != "0.weight"})


def test_a_whole_gradient_is_divided_as_its_parameter_is(mesh: Any) -> None:
    model = divided(mesh)
    parameter: Any = next(model.parameters())
    whole = torch.randn(parameter.shape)
    parameter.grad = divided_like(parameter, whole)
    assert isinstance(parameter.grad, DTensor)
    assert parameter.grad.placements == parameter.placements
    assert torch.equal(gathered(parameter.grad), whole)


FSDP = ("trainer.strategy=fsdp", "trainer.accelerator=gpu")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.channels_last=true", "trainer.channels_last=true: .*contiguous weights only"),
        ("trainer.precision=16-mixed", "trainer.precision=16-mixed: .*32 or bf16-mixed"),
        ("trainer.precision=64", "trainer.precision=64: .*32 or bf16-mixed"),
    ],
)
def test_what_a_divided_model_cannot_do_is_said_before_it_is_built(
    override: str, line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        compose(*FSDP, override)


def test_a_model_that_will_be_divided_keeps_contiguous_weights() -> None:
    config = compose(*FSDP, "network=resnet8", "data=synthetic", "data.shape=[3,32,32]")
    assert assembly.wants_channels_last(config, assembly.make_model(config)) is False


COMMON = (
    "trainer.max_epochs=1", "data.limit=165", "data.batch_size=16", "data.eval_batch_size=21",
    "network=lstm", "callbacks.progress_bar=false", "recorder=debug",
    "recorder.flush_every_n_steps=2", "trainer.accumulate_grad_batches=2",
    "trainer.gradient_clip_val=0.05", "callbacks.checkpoint.every_n_steps=2",
    "callbacks.checkpoint.keep_last=9", "callbacks.checkpoint.test_with=best",
)  # fmt: skip


def train(processes: int, run: Path, *overrides: str) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.sharded", str(rank), str(processes), port,
             str(run), *COMMON, *overrides],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * processes, outputs[0][-3000:]
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


@pytest.mark.slow
@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_divided_model_trains_resumes_tests_and_is_drawn(
    processes: int, style: str, tmp_path: Path
) -> None:
    """One process more has nothing of the last evaluation batch, and must take part in it."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    alone = pipeline.train(compose("trainer=cpu", *COMMON, f"model={style}"), tmp_path / "alone")
    result = train(processes, whole, f"model={style}")
    for metric in ("test/loss", "val/loss", "train/loss_epoch"):
        assert result[metric] == pytest.approx(alone[metric], rel=1e-3)
    assert result["tested_checkpoint"].startswith("best")
    shown = EventAccumulator(str(whole)).Reload().Tags()["images"]
    assert any(tag.startswith("test/predictions") for tag in shown)

    shutil.copytree(whole, again)
    for stale in [again / "result.json", *(again / "checkpoints").glob("*.ckpt")]:
        stale.unlink()
    # The gradients of half a step are in it: six batches are processed, and three steps done.
    shutil.copy(whole / "checkpoints" / "step000002.ckpt", again / "checkpoints" / "last.ckpt")
    assert train(processes, again, f"model={style}")["test/loss"] == result["test/loss"]
    ends = [load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (whole, again)]
    assert list(ends[0]["state_dict"]) == list(ends[1]["state_dict"])
    for name, tensor in ends[0]["state_dict"].items():
        assert torch.equal(tensor, ends[1]["state_dict"][name])
