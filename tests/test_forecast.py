"""A forecast against what a training then takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convtrain.assembly import make_model
from convtrain.forecast import forecast, make_model_on_meta, saved_for_backward
from tests.conftest import QUICK, Train, compose

RUNS = {
    "adam, accumulation": ["optimizer=adam", "trainer.accumulate_grad_batches=4"],
    "fast_dev_run": ["trainer.fast_dev_run=3"],
    "no log": ["logger=none", "callbacks.checkpoint.save_top_k=0", "trainer.max_epochs=2"],
}
LONGER_RUNS = {
    "few steps": ["trainer.max_steps=7"],
    "two epochs": ["trainer.max_epochs=2"],
    "dropping the rest": ["data.drop_last=true", "data.batch_size=100"],
    "parts of an epoch": ["trainer.limit_train_batches=0.3", "trainer.max_epochs=3"],
    "few batches": ["trainer.limit_train_batches=5", "trainer.accumulate_grad_batches=2"],
    "overfit": ["data.overfit_batches=1", "trainer.max_epochs=6", "optimizer=rmsprop"],
}


def slow(cases: dict[str, list[str]]) -> list[Any]:
    return [pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in cases.items()]


def quick(cases: dict[str, list[str]]) -> list[Any]:
    return [pytest.param(case, id=name) for name, case in cases.items()]


@pytest.mark.parametrize("overrides", quick(RUNS) + slow(LONGER_RUNS))
def test_a_run_takes_what_was_forecast(train: Train, tmp_path: Path, overrides: list[str]) -> None:
    told = forecast(compose(*QUICK, *overrides))
    result = train(*overrides)
    assert told.parameters == result["parameters"]
    assert told.steps == result["steps"]
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    saved = sum(path.stat().st_size for path in files if path.suffix == ".ckpt")
    checkpoints = sum(size for name, size in told.disk.items() if "checkpoint" in name)
    assert checkpoints == pytest.approx(saved, rel=0.1)
    others = sum(path.stat().st_size for path in files) - saved
    told_of_others = sum(told.disk.values()) - checkpoints
    assert told_of_others / 3 < others + 10_000 < told_of_others * 3  # Hydra's files are 10 kB


def kept_by_autograd(model: nn.Module, images: torch.Tensor, loss: Callable[..., Any]) -> int:
    """Return the bytes that a real forward pass on the CPU keeps, parameters left out."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    targets = torch.zeros(len(images), dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = loss(model(images), targets)
    assert result.requires_grad  # and with it the graph, so that no address is used twice
    return sum(kept.values())


MODELS = {
    "functional": [],
    "nn": ["model=nn", "loss=multi_margin", "data.batch_size=7"],
    "resnet8": ["network=resnet8", "data=synthetic", "data.batch_size=4"],
}
LARGER_MODELS = {
    name: [f"network={name}", "data=synthetic", "data.batch_size=4"]
    for name in ("densenet121", "efficientnet_b0", "convnext_tiny", "googlenet", "resnet50")
} | {"torchvision": ["model=torchvision", "model.name=mobilenet_v3_small", "data=synthetic"]}


@pytest.mark.parametrize("overrides", quick(MODELS) + slow(LARGER_MODELS))
def test_activations_are_what_autograd_keeps(overrides: list[str]) -> None:
    config = compose(*overrides)
    told = saved_for_backward(config, make_model_on_meta(config))
    images = torch.randn(config.data.batch_size, *config.data.shape)
    kept = kept_by_autograd(make_model(config), images, config.loss.build())
    assert told == pytest.approx(kept, rel=0.02)


def test_activations_counted_by_hand() -> None:
    """A convolution keeps its input, ReLU its output, Linear its input, the loss log-softmax."""
    config = compose(
        "data.batch_size=10",
        "network.layers=[{Conv2d: {out_channels: 4, kernel_size: 3}}, ReLU, Flatten,"
        "{Linear: {out_features: 10}}]",
    )
    told = forecast(config)
    image, convolved, scores = 8 * 8, 4 * 6 * 6, 10
    once = 8 * 10 + 4  # the targets, and the number of images that the loss divides by
    assert told.memory["activations"] == 4 * 10 * (image + convolved + scores) + once
    assert told.parameters == 4 * 9 + 4 + 10 * convolved + 10
    assert told.memory["parameters"] == told.memory["gradients"] == 4 * told.parameters


@pytest.mark.parametrize(
    ("overrides", "times"),
    [
        (["optimizer=sgd"], 0),
        (["optimizer=sgd_momentum"], 1),
        (["optimizer=adam"], 2),
        (["optimizer=rmsprop"], 1),
        (["optimizer=rmsprop", "optimizer.momentum=0.5"], 2),
        (["optimizer=adamw", "trainer.precision=64"], 4),
    ],
    ids=str,
)
def test_optimisers_hold_so_many_numbers_a_parameter(overrides: list[str], times: int) -> None:
    told = forecast(compose(*overrides))
    assert told.memory["optimiser state"] == pytest.approx(times * 4 * told.parameters, rel=1e-3)


def test_what_looks_at_values_is_built_for_real(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "orthogonal.yaml").write_text(
        "name: orthogonal\nlayers: [Flatten, Linear: {out_features: 10}]\ninit: {}\n"
        "parametrize: {linear_1.weight: orthogonal}\n"
    )
    from convtrain.command.command_line import CommandLine
    from convtrain.command.configure import configure_command

    command = CommandLine(overrides=["network=orthogonal"], extra_dir=tmp_path)
    (config,) = configure_command(command).configs
    assert forecast(config).parameters == 64 * 10 + 10


def test_devices_share_a_batch() -> None:
    alone, two = (forecast(compose(f"trainer.devices={n}", "trainer=cpu")) for n in (1, 2))
    assert alone.steps == two.steps
    assert two.memory["activations"] == pytest.approx(alone.memory["activations"] / 2, rel=1e-3)
    assert two.memory["parameters"] == alone.memory["parameters"]
