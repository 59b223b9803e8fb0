"""``convtrain code``: plain PyTorch that computes the same bits as the network that it shows."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convtrain
from convtrain.__main__ import main
from convtrain.assembly import make_model
from convtrain.config.schema import Config
from convtrain.errors import ConfigError
from convtrain.program import verb_words
from convtrain.run.commands import CONFIGS
from convtrain.training.objectives import make_loss
from convtrain.use.code.write import Code, write_code
from tests.conftest import REPOSITORY, Train, compose, slow_but

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
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
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
@pytest.mark.parametrize("network", slow_but(NETWORKS, "resnet8"))
def test_the_file_computes_the_same_bits_as_the_run(network: str, style: Any) -> None:
    same_start = (network, style) not in OTHER_NUMBERS
    code = check_bits(config_of(network, f"model={style}"), style, same_start=same_start)
    assert ("numbers differ" in code.text) != same_start
    assert len(code.text.splitlines()) < 210


PARTS = (
    *("model.freeze=[backbone]", "model.unfreeze_at_epoch=1", "trainer.ema=0.99"),
    *("model.weights=DEFAULT", "data.sampling=balanced", "augment=crop_flip_cutout"),
)
"""What the training loop can have besides."""


@pytest.mark.parametrize(
    "networks", slow_but([("lenet", "resnet18"), tuple(NETWORKS)], ("lenet", "resnet18"))
)
def test_ruff_has_nothing_to_change(networks: tuple[str, ...], tmp_path: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    for network in networks:
        config = config_of(network, *(PARTS if network == "resnet18" else ()))
        for style in STYLES:
            (tmp_path / f"{network}_{style}.py").write_text(write_code(config, style).text)
    settings = ("--config", str(REPOSITORY / "pyproject.toml"), "--no-cache")
    for command in (("check",), ("format", "--check")):
        done = subprocess.run([ruff, *command, *settings, tmp_path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


CONV = {"Conv2d": {"out_channels": "$out", "kernel_size": "$kernel", "padding": "$kernel // 2"}}
BLOCKS: dict[str, object] = {
    "conv": {"takes": {"out": "required", "kernel": 3}, "layers": [CONV, "BatchNorm2d", "ReLU"]},
    "basic": {
        "takes": {"from": "required", "half": "required", "shortcut": []},
        "layers": [
            {"Residual": {"body": [{"conv": {"out": "$half * 2"}}], "shortcut": "$shortcut"}},
            {"Dropout": {"p": "$from / 100"}},
        ],
    },
    "stage": {
        "takes": {"times": "required"},
        "layers": [
            {"basic": {"from": 3, "half": 3, "shortcut": [{"conv": {"out": 6, "kernel": 1}}]}},
            {"Repeat": {"times": "$times", "layers": [{"basic": {"from": 6, "half": 3}}]}},
        ],
    },
}
"""Parameters that Python or torch.nn.Module call otherwise, lists as parameters, repetitions."""

DECLARED: dict[str, list[Any]] = {
    "blocks": [{"conv": {"out": 3}}, {"stage": {"times": 2}},
               {"Conv2d": {"out_channels": 3, "kernel_size": 1}}, {"stage": {"times": 1}}],
    "branches": [
        {"Concat": [{"conv": {"out": 2}}, [{"conv": {"out": 3}}, "Tanh"], "Identity"]},
        {"Sum": [{"conv": {"out": 8}}, {"Residual": [{"conv": {"out": 8}}]}, "ReLU"]},
        {"Gate": [{"AdaptiveAvgPool2d": {"output_size": 1}}, "Sigmoid"]},
        {"Dense": [{"Repeat": {"times": 7, "layers": [["ReLU", {"conv": {"out": 2}}]]}}]},
        "Flatten",
    ],
    "repeated branches": [
        {"Dense": [{"Repeat": {"times": 3, "layers": ["ReLU", {"conv": {"out": 2}}]}}]},
    ],
    "loops": [
        {"Repeat": {"times": 8, "layers": [{"conv": {"out": 4}}, "BatchNorm2d"]}},
        {"Repeat": {"times": 7, "layers": [{"conv": {"out": "$index * $index + 1"}}]}},
    ],
    "sequence": [{"Flatten": {"start_dim": 2}}, {"LSTM": {"hidden_size": 5, "bidirectional": True}},
                 {"Pick": {"index": [1, 0]}}, {"Select": {"dim": 0, "index": -1}}],
    "own layers": [{"tests.network.own.Scale": {"by": 2.0}}, "tests.network.own.Stage"],
}  # fmt: skip


def declare(layers: list[Any], **more: object) -> Config:
    config = config_of(
        "lenet", "loss=sum", "data.shape=[3,8,8]", "data.mean=[0,0,0]", "data.std=[1,1,1]"
    )
    network = {"layers": layers, "blocks": BLOCKS, "name": "net", **more}
    changed = {"network": config.network.model_copy(update=network), "trust": ["tests"]}
    return config.model_copy(update=changed)


@pytest.mark.parametrize("name", slow_but(DECLARED, "blocks", "repeated branches"))
def test_any_structure_is_written(name: str) -> None:
    layers = DECLARED[name]
    for style in STYLES:
        code = check_bits(declare(layers), style)
        assert ("class BasicBlock" in code.text) == ("stage" in str(layers))
        assert len(code.text.splitlines()) < 180


def test_what_changes_parameters_is_written() -> None:
    layers = [
        {"Conv2d": {"out_channels": 4, "kernel_size": 3}},
        "Flatten",
        {"Linear": {"out_features": 2}},
    ]
    init = {"*.weight": {"normal": {"std": 0.5}}, "linear_*.bias": "zeros"}
    for style in STYLES:
        assert "nn.init.normal_(" in check_bits(declare(layers, init=init), style).text
    for changed in (
        {"parametrize": {"conv*.weight": "weight_norm"}},
        {"prune": {"*.weight": {"l1_unstructured": {"amount": 0.5}}}},
    ):
        check_bits(declare(layers, **changed), "nn")
        with pytest.raises(ConfigError, match="type model=nn"):
            write_code(declare(layers, **changed), "functional")


def test_a_runs_weights_are_those_of_the_file(train: Train, tmp_path: Path) -> None:
    train("data.limit=64", "model=nn")
    run, net, weights = (str(tmp_path / name) for name in ("run", "net.py", "net.pt"))
    assert main(["code", run, "model=functional", "--out", net, "--weights", weights]) == 0
    namespace: dict[str, Any] = {"__name__": "net"}
    exec(Path(net).read_text(), namespace)
    written = namespace["ConvNet"]()
    written.load_state_dict(torch.load(weights))
    assert "model.to(memory_format=torch.channels_last)" in Path(net).read_text()
    written.to(memory_format=torch.channels_last)
    images = torch.randn(5, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    trained = convtrain.load(run, device="cpu").model
    assert torch.equal(written.eval()(images), trained(images))
    assert (
        f"{shlex.join(verb_words('code'))} {run} model=functional --weights"
        in Path(net).read_text()
    )


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("network=lenett", "did you mean lenet?"),
        ("model=torchvision", "only a declared network has code"),
        ("nowhere", "nowhere: not a run"),
        ("--weights net.pt network=lenet", "--weights: needs a run"),
        ("-m seed=1,2", "-m: the code shows one network"),
        ("network=vgg16_bn", "max_pool2d_1 (MaxPool2d): input"),
        ("loss=custom loss._target_=tests.training.test_custom_losses.Missing", "loss._target_"),
    ],
)
def test_a_mistake_is_one_line(typed: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["code", *typed.split()]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


WEIGHTED = ("cross_entropy", "bce", "focal", "multi_margin", "nll")
LOSSES = ("cross_entropy", "bce", "focal", "mse", "multi_margin", "nll", "sum")
CHOICES = (
    *((f"loss={loss}",) for loss in LOSSES),
    (
        "loss=focal",
        "loss.form=sigmoid",
        "loss.alpha=0.25",
        "scheduler=cosine",
        "scheduler.warmup_epochs=2",
    ),
    ("loss=focal", "loss.alpha=[1,1,1,1,1,1,1,1,1,2]", "scheduler=cosine_restarts"),
    *((f"loss={loss}", f"loss.class_weights={[*range(1, 11)]}") for loss in WEIGHTED),
    ("loss=focal", "loss.form=sigmoid", "loss.class_weights=balanced"),
    ("loss.label_smoothing=0.1", "loss.class_weights=balanced"),
    ("loss.label_smoothing=0.1", "scheduler=linear", "scheduler.final_fraction=0.1"),
    ("loss=bce", "loss.label_smoothing=0.1", "scheduler=step", "scheduler.warmup_epochs=0.5"),
    ("loss=custom", "loss._target_=torch.nn.CrossEntropyLoss", "loss.label_smoothing=0.1"),
    ("optimizer=muon", "scheduler=plateau", "trainer.gradient_clip_val=1", "augment.cutout=2"),
    ("optimizer=adam", "scheduler=polynomial", "optimizer.betas=[0.8,0.9]"),
    ("optimizer=adafactor", "scheduler=exponential", "scheduler.warmup_epochs=1"),
)


@pytest.mark.parametrize("chosen", slow_but(CHOICES, CHOICES[7]))
def test_the_loop_trains_with_the_configured_loss(chosen: tuple[str, ...]) -> None:
    config = config_of("lenet", "data.shape=[1,12,12]", "trainer.max_epochs=2", *chosen)
    text = write_code(config, "nn").text
    file: dict[str, Any] = {"__name__": "file"}
    exec(text.replace("1024", "192"), file)
    file["train"]()
    criterion = re.findall(r"    criterion = (.*)\.to\(device\)", text)
    file |= {"logits": torch.randn(6, 10), "labels": torch.randint(10, (6,))}
    file |= {"criterion": eval(criterion[0], file)} if criterion else {}
    weights = re.findall(r"    class_weights = (.*)", text)
    file |= {"device": "cpu", "class_weights": None}
    if weights:
        labels, file["labels"] = file["labels"], torch.arange(1100).sqrt().long() % 10
        counts = file["labels"].bincount().tolist()
        file["class_weights"] = eval(weights[0], file)
        file["labels"] = labels
    loss = text.partition("loss = ")[2] if "losses" not in text else text.rpartition("loss = ")[2]
    ours = eval("(" + loss.partition("# Step 5")[0] + ")", file)
    weights = [1100 / (10 * count) for count in counts] if weights else None
    theirs = make_loss(config, class_weights=weights)(file["logits"], file["labels"])
    if weights and "focal" not in chosen[0]:  # ours is written to have a finite gradient
        assert torch.equal(ours, theirs)
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=0)
    left_out = {"scheduler=plateau", "augment"} if "scheduler=plateau" in chosen else set()
    assert all(each in text for each in left_out)
    assert ("leaves out" in text) == bool(left_out)
