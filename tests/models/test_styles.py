"""One declared network, two styles, the same bits."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import convtrain
from convtrain.errors import ConfigError, NetworkError
from convtrain.models.observe import observe_outputs
from tests.conftest import REPOSITORY

SHAPE = (3, 32, 32)
NETWORKS = ("lenet", "convnet", "resnet8")


def declared(name: str) -> list[Any]:
    text = (REPOSITORY / "configs" / "network" / f"{name}.yaml").read_text()
    return yaml.safe_load(text.replace('"${data.num_classes}"', "10"))["layers"]


def pair(layers: list[Any], shape: tuple[int, ...] = SHAPE) -> tuple[nn.Module, nn.Module]:
    models = []
    for style in ("nn", "functional"):
        torch.manual_seed(0)
        models.append(convtrain.build_model(layers, shape, style=style))
    return models[0], models[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_steps_leave_the_same_bits(name: str) -> None:
    models = pair(declared(name))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in models]
    for step in range(20):
        torch.manual_seed(100 + step)
        images, targets = torch.randn(8, *SHAPE), torch.randint(0, 10, (8,))
        losses = []
        for model, optimizer in zip(models, optimizers, strict=True):
            torch.manual_seed(step)
            loss = nn.functional.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss)
        assert torch.equal(*losses)
    left, right = (model.state_dict() for model in models)
    assert list(left) == list(right)
    assert all(torch.equal(left[key], right[key]) for key in left)
    left_model, right_model = (m.eval() for m in models)
    assert torch.equal(left_model(images), right_model(images))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_of_one_style_loads_strictly_into_the_other(name: str) -> None:
    tree, explicit = pair(declared(name))
    torch.manual_seed(9)
    fresh = convtrain.build_model(declared(name), SHAPE, style="functional")
    fresh.load_state_dict(tree.state_dict(), strict=True)
    tree.load_state_dict(explicit.state_dict(), strict=True)
    images = torch.randn(4, *SHAPE)
    assert torch.equal(fresh.eval()(images), tree.eval()(images))


def test_the_functional_style_holds_parameters_and_no_layers() -> None:
    model = convtrain.build_model(declared("resnet8"), SHAPE, style="functional")
    for module in model.modules():
        assert not type(module).__module__.startswith("torch.nn"), type(module)
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())


def test_the_nn_style_is_a_tree_of_torch_modules() -> None:
    model = convtrain.build_model(declared("convnet"), SHAPE, style="nn")
    assert [type(m).__name__ for m in model.children()][:4] == [
        "Conv2d",
        "BatchNorm2d",
        "ReLU",
        "MaxPool2d",
    ]
    assert "batch_norm2d_1.running_mean" in model.state_dict()


def test_a_frozen_batch_norm_stays_frozen_in_both_styles() -> None:
    images = torch.randn(4, *SHAPE)
    outputs = []
    for model in pair(declared("convnet")):
        model.train()
        model.get_submodule("batch_norm2d_1").eval()
        before = model.get_buffer("batch_norm2d_1.running_mean").clone()
        torch.manual_seed(0)
        outputs.append(model(images))
        assert torch.equal(model.get_buffer("batch_norm2d_1.running_mean"), before)
    assert torch.equal(*outputs)


def test_a_copy_and_its_original_have_weights_of_their_own() -> None:
    model = convtrain.build_model(declared("lenet"), (1, 28, 28))
    images = torch.randn(2, 1, 28, 28)
    before = model(images)
    clone = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.zero_()
    assert torch.equal(model(images), before)
    assert torch.equal(clone(images), torch.zeros(2, 10))


@pytest.mark.parametrize("style", ["nn", "functional"])
def test_every_layers_output_can_be_observed_by_name(style: Any) -> None:
    model = convtrain.build_model(declared("resnet8"), SHAPE, style=style).eval()
    seen: dict[str, torch.Size] = {}
    with observe_outputs(model, lambda name, output: seen.update({name: output.shape})):
        model(torch.randn(2, *SHAPE))
    assert seen["conv2d_1"] == (2, 16, 32, 32)
    assert seen["residual_2.body.conv2d_2"] == (2, 32, 16, 16)
    seen.clear()
    model(torch.randn(2, *SHAPE))
    assert not seen


def test_initial_weights_follow_their_patterns() -> None:
    layers = [
        {"Conv2d": {"out_channels": 2, "kernel_size": 3}},
        "Flatten",
        {"Linear": {"out_features": 3}},
    ]
    init = {"*.bias": "zeros", "conv*.weight": {"constant": {"val": 0.5}}}
    model = convtrain.build_model(layers, (1, 5, 5), init=init)
    assert (model.get_parameter("conv2d_1.weight") == 0.5).all()
    assert (model.get_parameter("linear_1.bias") == 0).all()
    assert model.get_parameter("linear_1.weight").std() > 0
    for wrong, hint in (
        ({"*.weight": "onse"}, "did you mean ones"),
        ({"nothing.*": "ones"}, "matches no parameter"),
        ({"*.weight": {"constant": {}}}, "constant"),
    ):
        with pytest.raises(NetworkError, match=hint):
            convtrain.build_model(layers, (1, 5, 5), init=wrong)


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ConfigError, match="style='jax'"):
        convtrain.build_model(["Flatten"], (1, 2, 2), style="jax")  # type: ignore[arg-type]


def test_importing_the_package_imports_no_torch(python: str, tmp_path: Path) -> None:
    import subprocess

    code = "import sys, convtrain; assert 'torch' not in sys.modules; convtrain.build_model"
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize("style", ["nn", "functional"])
def test_several_may_observe_at_once_and_leave_in_any_order(style: Any) -> None:
    from convtrain.models.observe import observe_outputs

    model = convtrain.build_model(
        ["Flatten", {"Linear": {"out_features": 2}}], (1, 2, 2), style=style
    )
    seen: dict[str, list[str]] = {"first": [], "second": []}
    first = observe_outputs(model, lambda name, _: seen["first"].append(name))
    second = observe_outputs(model, lambda name, _: seen["second"].append(name))
    first.__enter__()
    second.__enter__()
    model(torch.ones(1, 1, 2, 2))
    first.__exit__(None, None, None)
    model(torch.ones(1, 1, 2, 2))
    second.__exit__(None, None, None)
    model(torch.ones(1, 1, 2, 2))
    layers = ["flatten_1", "linear_1"]
    assert seen == {"first": layers, "second": layers * 2}
