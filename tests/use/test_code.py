"""``convtrain code``: plain PyTorch that computes the same bits as the network that it shows."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convtrain.assembly import make_model
from convtrain.config.schema import Config
from convtrain.run.commands import CONFIGS
from convtrain.use.code.write import Code, write_code
from tests.conftest import REPOSITORY, compose, slow_but

NETWORKS = sorted(path.stem for path in (CONFIGS / "network").glob("*.yaml"))
STYLES: tuple[Any, ...] = ("nn", "functional")
OTHER_NUMBERS = {
    ("convnext_tiny", "functional"),
    ("efficientnet_b0", "functional"),
    ("mobilenet_v2", "functional"),
}
"""Files that draw their first weights in another order than the run; a comment there says so."""

GREY = {"lenet": 28, "convnet": 8, "conv2d": 8, "conv2d_ones": 8, "lstm": 8}
SIZES = {"alexnet": 63, "googlenet": 15, "densenet121": 29, "vgg16_bn": 32}


def config_of(network: str, *overrides: str) -> Config:
    size = GREY.get(network) or SIZES.get(network, 32)
    shape = (1, size, size) if network in GREY else (3, size, size)
    grey = ("data.mean=[0.5]", "data.std=[0.25]") if network in GREY else ()
    loss = ("loss=sum",) if network.startswith("conv2d") else ()
    chosen = (f"network={network}", "data=synthetic", f"data.shape={list(shape)}")
    return compose(*chosen, *grey, *loss, *overrides)


def executed(code: Code) -> nn.Module:
    """Return an instance of the file's class, after the file has seeded torch as a run does."""
    file = ModuleType("file")
    exec(compile(code.text, "file.py", "exec"), vars(file))
    torch.manual_seed(1)
    made = getattr(file, code.class_name)()
    assert isinstance(made, nn.Module)
    return made


def results(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return logits, gradients and buffers of a pass in each mode."""
    found = {}
    for mode in (False, True):
        model.train(mode).zero_grad()
        torch.manual_seed(3)
        logits = model(images)
        logits.square().sum().backward()
        found[f"logits {mode}"] = logits.detach()
        gradients = {f"{k} {mode}": p.grad for k, p in model.named_parameters()}
        found |= {key: value.clone() for key, value in gradients.items() if value is not None}
    return {**found, **dict(model.named_buffers())}


def check_bits(config: Config, style: Any, *, same_start: bool = True) -> Code:
    """Compare the file of a configuration with the model that its training has."""
    code = write_code(config, style)
    torch.manual_seed(1)
    model, written = make_model(config), executed(code)
    start, own = code.rename(model.state_dict()), written.state_dict()
    assert sorted(start) == sorted(own)
    assert same_start == all(torch.equal(start[key], own[key]) for key in own)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    written.load_state_dict(code.rename(model.state_dict()))
    images = torch.randn(3, *config.data.shape)
    theirs, ours = results(model, images), results(written, images)

    for key, value in theirs.items():
        name, blank, mode = key.partition(" ")
        if name == "logits" or code.names.has(name):
            ours_key = key if name == "logits" else f"{code.names.key(name)}{blank}{mode}"
            assert torch.equal(value, ours[ours_key]), key
    return code


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("network", slow_but(NETWORKS, "lenet", "resnet8"))
def test_the_file_computes_the_same_bits_as_the_run(network: str, style: Any) -> None:
    same_start = (network, style) not in OTHER_NUMBERS
    code = check_bits(config_of(network, f"model={style}"), style, same_start=same_start)
    assert ("numbers differ" in code.text) != same_start


@pytest.mark.parametrize(
    "networks", slow_but([("lenet", "resnet18"), tuple(NETWORKS)], ("lenet", "resnet18"))
)
def test_ruff_has_nothing_to_change(networks: tuple[str, ...], tmp_path: Path) -> None:
    for network in networks:
        config = config_of(network)
        for style in STYLES:
            (tmp_path / f"{network}_{style}.py").write_text(write_code(config, style).text)
    settings = ("--config", str(REPOSITORY / "pyproject.toml"), "--no-cache")
    for command in (("check",), ("format", "--check")):
        ruff = Path(sys.executable).with_name("ruff")
        done = subprocess.run([ruff, *command, *settings, tmp_path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
