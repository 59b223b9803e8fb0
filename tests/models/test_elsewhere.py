"""Models that are not declared: torchvision's by name, and one's own by import path."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from convtrain.command.resolvers import run_name
from convtrain.config.groups.model import CustomModel
from convtrain.errors import ConfigError, NetworkError
from convtrain.models.build import build_custom_model, build_torchvision_model

SIZES = {"num_classes": 7, "in_channels": 1, "in_chans": 1, "input_shape": (1, 32, 32)}
"""What the data offers to a model."""
TIMM = """
from torch import nn

def create_model(model_name, pretrained=False, **kwargs):
    if pretrained:
        raise OSError("no network")
    convolution = nn.Conv2d(kwargs["in_chans"], kwargs.get("width", 4), 3)
    return nn.Sequential(convolution, nn.Flatten(), nn.LazyLinear(kwargs["num_classes"]))
"""


def custom(target: str, *trust: str, **arguments: object) -> CustomModel:
    declared = {"style": "custom", "_target_": target, **arguments}
    model = CustomModel.model_validate(declared)
    model.place("model", trust)
    return model


@pytest.fixture
def timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package in timm's place, which need not be installed."""
    (tmp_path / "timm.py").write_text(TIMM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    yield
    sys.modules.pop("timm", None)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_x_400mf"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_torchvision_model_takes_the_images_and_gives_a_score_a_class(
    name: str, channels: int
) -> None:
    model = build_torchvision_model(name, (channels, 32, 32), 7)
    assert model.eval()(torch.randn(2, channels, 32, 32)).shape == (2, 7)


def test_an_unknown_torchvision_model_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"model\.name=resnet81: .*did you mean resnet18\?"):
        build_torchvision_model("resnet81", (3, 32, 32), 7)


def test_a_vision_transformer_is_built_for_the_images() -> None:
    """Weights may expect larger ones than the transformer's usual 224x224."""
    model = build_torchvision_model("vit_b_32", (3, 64, 64), 7)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_images_too_small_for_a_model_are_one_line() -> None:
    with pytest.raises(NetworkError, match=r"model\.name=alexnet: cannot take images of") as raised:
        build_torchvision_model("alexnet", (3, 8, 8), 7)
    assert len(str(raised.value).splitlines()) == 1


OWN = "tests.network.own"
FACTORIES: dict[str, dict[str, object]] = {
    f"{OWN}.Net": {"width": 3},
    f"{OWN}.linear": {"scale": 2},
    "torchvision.models.mnasnet0_5": {"dropout": 0.1},
    "torchvision.models.VisionTransformer": {
        "image_size": 32, "patch_size": 16, "num_layers": 1, "num_heads": 1, "hidden_dim": 4,
        "mlp_dim": 4,
    },
    "timm.create_model": {"model_name": "resnet10", "width": 2},
}  # fmt: skip


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(("target", "arguments"), FACTORIES.items(), ids=FACTORIES)
def test_a_class_or_a_factory_gets_its_arguments_and_the_sizes_of_the_data(
    target: str, arguments: dict[str, object]
) -> None:
    model = custom(target, "tests", **arguments)
    assert not list(model.mistakes())
    channels = 3 if target.startswith("torchvision") else 1  # torchvision's have no such argument
    shape, cpu = (channels, 32, 32), torch.device("cpu")
    built = build_custom_model(model, shape, 7, checks_classes=True, device=cpu).eval()
    assert built(torch.randn(2, channels, 32, 32)).shape == (2, 7)
    typed = custom(target, "tests", **arguments, num_classes=5)
    assert "num_classes" not in typed.offered(**SIZES)


@pytest.mark.usefixtures("timm")
def test_a_model_of_timm_gives_its_name_to_its_runs() -> None:
    assert custom("timm.create_model", model_name="vit").class_name == "vit"
    assert run_name({"_target_": "timm.create_model", "model_name": "vit"}) == "vit"


WRONG: dict[str, tuple[CustomModel, str]] = {
    "spelling": (
        custom(f"{OWN}.Net", "tests", widht=3), "model.widht: Net has no such argument; did you "
        "mean width?",
    ),
    "type": (custom(f"{OWN}.Net", "tests", width="3"), "model.width: must be a whole number"),
    "missing": (custom(f"{OWN}.Wrong", "tests"), "model.how: is missing (an argument of Wrong)"),
    "builder": (
        custom("torchvision.models.resnet18", num_clases=3),
        "model.num_clases: resnet18 has no such argument; did you mean num_classes?",
    ),
    "own key": (custom(f"{OWN}.Styled", "tests"), "model.style: is convtrain's own key, so that"),
    "not a module": (custom(f"{OWN}.NotALayer", "tests"), f"model._target_={OWN}.NotALayer: "
                     "expected a class derived from torch.nn.Module, or a function that"),
    "not a classifier": (
        custom("torchvision.models.segmentation.fcn_resnet50"), "expected a class"
    ),
    "not a builder": (custom("torchvision.models.get_model", name="resnet18"), "expected a class"),
    "untrusted": (custom(f"{OWN}.Net"), "add 'trust=[tests]'"),
    "unknown": (custom(f"{OWN}.Nett", "tests"), "has no attribute 'Nett'"),
    "absent": (custom("absent.Net", "absent"), "cannot be imported: No module named 'absent'"),
    "timm": (custom("timm.create_model"), "; pip install timm"),
    "python": (custom("os.system", "os"), "os belongs to Python"),
    "torch": (custom("torch.load", "torch"), "torch is a library that runs or loads"),
    "function of torch": (custom("torch.nn.init.zeros_"), "expected a class derived from"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_found_before_anything_is_built(
    model: CustomModel, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    try:
        (mistake,) = model.mistakes()
        line = f"{mistake.key}: {mistake.text}"
    except ConfigError as error:
        (line,) = error.lines
    assert message in line


def test_pretrained_weights_are_the_factorys_affair(timm: None) -> None:
    model = custom("timm.create_model", model_name="vit", pretrained=True)
    assert not list(model.mistakes())
    with pytest.raises(ConfigError, match=r"model\._target_=timm\.create_model: OSError: no netw"):
        model.build(**model.offered(**SIZES))


def test_a_factory_returns_a_module() -> None:
    model = custom(f"{OWN}.number", "tests")
    with pytest.raises(
        ConfigError, match=r"number: must return a torch\.nn\.Module, and returns int"
    ):
        build_custom_model(model, (1, 8, 8), 7, checks_classes=True, device=torch.device("cpu"))
