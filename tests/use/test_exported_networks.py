"""Every shipped network in both styles, and models of others, in the formats of programs."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins import Precision
from torch import Tensor, nn

from convtrain.assembly import make_model
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, NetworkError
from convtrain.run.directory import Run
from convtrain.use.export import FORMATS
from convtrain.use.formats import onnx
from convtrain.use.formats.compare import Sample, compare
from convtrain.use.formats.portable import Portable, make_portable
from convtrain.use.trained import Trained
from tests.conftest import REPOSITORY, compose


class Own(nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 5, stride=4)
        self.out = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.out(self.conv(images).amax((2, 3)))
        return logits


NETWORKS = sorted(path.stem for path in (REPOSITORY / "configs" / "network").glob("*.yaml"))
SMALL = {"convnet", "lstm", "resnet8"}
OTHER = {"lenet": ["data=mnist"], "conv2d": ["loss=sum"], "conv2d_ones": ["loss=sum"]}


def of(network: str) -> list[str]:
    """Return overrides that choose a network and the smallest images that it takes."""
    images = [] if network in SMALL else ["data=synthetic", "data.shape=[3,64,64]"]
    return ["trainer=cpu", f"network={network}", *OTHER.get(network, images)]


def portable_of(config: Config, folder: Path) -> Portable:
    """Return a model with fresh weights as if it had been trained."""
    torch.manual_seed(0)
    model = make_model(config).eval()
    classes = config.data.class_names
    return make_portable(
        Trained(
            Run(folder), config, folder / "last.ckpt", model, classes=classes, multi_label=False,
            channels_last=False, device=torch.device("cpu"), precision=Precision(),
        )
    )  # fmt: skip


def check(portable: Portable, format: str, folder: Path) -> None:
    chosen = FORMATS[format]
    file = folder / chosen.file
    chosen.write(portable, file)
    images = torch.randint(0, 256, (6, *portable.example.shape[1:]), dtype=torch.uint8)
    samples = [Sample(part, part) for part in images.split([1, 5])]
    agreement = compare(portable, chosen.read(portable, file), samples)
    assert agreement.is_close
    assert agreement.same_classes in (None, 6)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", "onnx", "python"])
@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_in_both_styles(
    network: str, style: str, format: str, tmp_path: Path
) -> None:
    check(portable_of(compose(*of(network), f"model={style}"), tmp_path), format, tmp_path)


CHANGED = {
    "parametrize": {"conv*.weight": "weight_norm"},
    "prune": {"*.weight": {"l1_unstructured": {"amount": 0.3}}},
}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", "onnx", "python"])
@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize("key", CHANGED)
def test_parametrized_and_pruned_weights(key: str, style: str, format: str, tmp_path: Path) -> None:
    config = compose(*of("convnet"), f"model={style}")
    network = config.network.model_copy(update={key: CHANGED[key]})
    config = config.model_copy(update={"network": network})
    portable = portable_of(config, tmp_path)
    if (format, style) != ("python", "functional"):
        return check(portable, format, tmp_path)
    with pytest.raises(
        ConfigError, match=rf"^--format python: network\.{key}: .*; type --style nn"
    ):
        check(portable, format, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", "onnx", "python"])
@pytest.mark.parametrize(
    "model",
    [
        ["model=torchvision", "model.name=resnet18"],
        ["model=torchvision", "model.name=googlenet"],
        ["model=custom", "model._target_=tests.use.test_exported_networks.Own", "trust=[tests]"],
    ],
    ids=lambda overrides: overrides[1].partition("=")[2],
)
def test_models_of_others(model: list[str], format: str, tmp_path: Path) -> None:
    grey = ["data=synthetic", "data.shape=[1,64,64]", "data.mean=[0.5]", "data.std=[0.25]"]
    config = compose("trainer=cpu", *grey, *model)
    check(portable_of(config, tmp_path), format, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["nn", "functional"])
def test_a_layer_that_onnx_does_not_know_is_named(
    style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = "{FractionalMaxPool2d: {kernel_size: 2, output_size: 4}}"
    layers = f"network.layers=[{pool},Flatten,{{Linear: {{out_features: 10}}}}]"
    in_nn, config = (compose("trainer=cpu", f"model={each}", layers) for each in ("nn", style))
    monkeypatch.setattr(onnx, "load", lambda *_: portable_of(in_nn, tmp_path).trained)
    with pytest.raises(NetworkError) as caught:
        onnx.write(portable_of(config, tmp_path), tmp_path / "model.onnx")
    assert str(caught.value) == (
        "--format onnx: fractional_max_pool2d_1 (FractionalMaxPool2d) computes "
        "aten.fractional_max_pool2d, which torch.onnx cannot convert; choose --format pt2 or "
        "python, or declare another layer"
    )
