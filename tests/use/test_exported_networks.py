"""Every shipped network in both styles, and models of others, in the formats of programs."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins import Precision

from convtrain.assembly import make_model
from convtrain.config.schema import Config
from convtrain.errors import NetworkError
from convtrain.run.directory import Run
from convtrain.use.export import FORMATS
from convtrain.use.formats import onnx
from convtrain.use.formats.compare import Sample, compare
from convtrain.use.formats.portable import Portable, make_portable
from convtrain.use.trained import Trained
from tests.conftest import REPOSITORY, compose

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
    check(portable_of(config, tmp_path), format, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", "onnx", "python"])
@pytest.mark.parametrize(
    "model",
    [
        ["model=torchvision", "model.name=resnet18"],
        ["model=torchvision", "model.name=shufflenet_v2_x0_5"],
        ["model=custom", "model._target_=torchvision.models.squeezenet1_1"],
    ],
    ids=lambda overrides: overrides[1].partition("=")[2],
)
def test_models_of_others(model: list[str], format: str, tmp_path: Path) -> None:
    config = compose("trainer=cpu", "data=synthetic", "data.shape=[1,64,64]", *model)
    check(portable_of(config, tmp_path), format, tmp_path)


@pytest.mark.slow
def test_a_layer_that_onnx_does_not_know_is_named(tmp_path: Path) -> None:
    pool = "{FractionalMaxPool2d: {kernel_size: 2, output_size: 4}}"
    layers = f"network.layers=[{pool},Flatten,{{Linear: {{out_features: 10}}}}]"
    config = compose("trainer=cpu", "model=nn", layers)
    with pytest.raises(NetworkError) as caught:
        onnx.write(portable_of(config, tmp_path), tmp_path / "model.onnx")
    assert str(caught.value) == (
        "--format onnx: fractionalmaxpool2d_1 (FractionalMaxPool2d) computes "
        "aten.fractional_max_pool2d, which torch.onnx cannot convert; choose --format pt2 or "
        "python, or declare another layer"
    )
