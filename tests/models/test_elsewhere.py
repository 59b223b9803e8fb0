"""Models that are not declared: torchvision's by name, and one's own by import path."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from convtrain.config.trust import MODULE, load
from convtrain.errors import ConfigError, NetworkError
from convtrain.models.build import build_torchvision_model

SOURCE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, 3))

    def forward(self, images):
        return self.layers(images)

def not_a_module():
    return 3
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "ownpackage.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("ownpackage", None)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_torchvision_model_takes_the_images_and_gives_a_score_a_class(
    name: str, channels: int
) -> None:
    model = build_torchvision_model(name, (channels, 32, 32), 7)
    assert model.eval()(torch.randn(2, channels, 32, 32)).shape == (2, 7)


def test_an_unknown_torchvision_model_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"model\.name=resnet81: .*did you mean resnet18\?"):
        build_torchvision_model("resnet81", (3, 32, 32), 7)


def test_images_too_small_for_a_model_are_one_line() -> None:
    with pytest.raises(NetworkError, match=r"model\.name=alexnet: cannot take images of") as raised:
        build_torchvision_model("alexnet", (3, 8, 8), 7)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.usefixtures("own_package")
def test_a_module_of_ones_own_is_built_with_its_arguments() -> None:
    key, name = "model._target_", "ownpackage.Net"
    model = load(key, name, ["ownpackage"], MODULE)(width=5)
    assert isinstance(model, torch.nn.Module)
    assert model(torch.randn(2, 1, 4, 4)).shape == (2, 3)


@pytest.mark.usefixtures("own_package")
@pytest.mark.parametrize(
    ("target", "trust", "message"),
    [
        ("ownpackage.Net", [], r"add 'trust=\[ownpackage\]'"),
        ("ownpackage.Nett", ["ownpackage"], "cannot be imported"),
        ("absent.Net", ["absent"], "cannot be imported"),
        (
            "ownpackage.not_a_module",
            ["ownpackage"],
            "expected a class derived from torch.nn.Module",
        ),
        ("os.system", [], "os belongs to Python"),
        ("os.system", ["os"], "os belongs to Python"),
        ("torch.load", ["torch"], "torch is a library that runs or loads"),
        ("torch.nn.init.zeros_", [], "expected a class derived from torch.nn.Module"),
    ],
)
def test_a_wrong_import_path_is_one_line(target: str, trust: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("model._target_", target, trust, MODULE)
