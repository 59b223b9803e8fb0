"""``model=timm``: models of timm by name, with the weights that timm publishes or a file's."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convtrain.assembly import make_model
from convtrain.errors import ConfigError, MissingDataError
from convtrain.forecast import forecast
from convtrain.training.starting_weights import read_starting_weights
from tests.conftest import compose

timm = pytest.importorskip("timm")

NAME = "test_resnet.r160_in1k"  # 0.5 million parameters
MODEL = ("model=timm", f"model.name={NAME}", "data=synthetic", "data.num_classes=7")
SIZE = ("data.shape=[3,64,64]",)
GREY = ("data.shape=[1,64,64]", "data.mean=[0.5]", "data.std=[0.5]")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Put weights where the Hugging Face Hub's client keeps its downloads; return their model."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    torch.manual_seed(5)
    model: nn.Module = timm.create_model(NAME)
    folder = tmp_path / f"models--timm--{NAME}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(model.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    return model.eval()


def images(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [SIZE, GREY], ids=["colour", "grey"])
def test_published_weights_give_what_timm_itself_gives(
    size: tuple[str, ...], published: nn.Module
) -> None:
    channels = 1 if size is GREY else 3
    config = compose(*MODEL, *size, "model.weights=DEFAULT")
    model = make_model(config)
    found = read_starting_weights(config, model)
    assert found is not None
    state = torch.get_rng_state()
    said = found.load(model, config, None)
    assert torch.equal(torch.get_rng_state(), state)
    theirs = timm.create_model(NAME, pretrained=True, num_classes=7, in_chans=channels).eval()
    with torch.no_grad():
        assert torch.equal(
            model.eval().forward_features(images(channels)),  # type: ignore[operator]
            theirs.forward_features(images(channels)),
        )
    assert said["replaced"] == ["fc.weight", "fc.bias"]
    assert said["adapted"] == (["conv1.0.weight"] if size is GREY else [])
    assert forecast(config).weights == said["summary"]


def test_the_data_follows_what_timm_says_of_its_weights() -> None:
    known = timm.get_pretrained_cfg(NAME)
    found = compose(*MODEL, "model.weights=DEFAULT").data
    assert (found.mean, found.std) == (list(known.mean), list(known.std))


def test_a_file_of_a_model_of_timm_is_loaded(published: nn.Module, tmp_path: Path) -> None:
    torch.save(published.state_dict(), tmp_path / "mine.pth")
    config = compose(*MODEL[:3], *SIZE, f"model.weights={tmp_path / 'mine.pth'}",
                     "data.num_classes=1000", "data.train_size=2000")  # fmt: skip
    model = make_model(config)
    found = read_starting_weights(config, model)
    assert found is not None
    found.load(model, config, None)
    with torch.no_grad():
        assert torch.equal(model.eval()(images()), published(images()))


def test_what_cannot_be_had_is_one_line(published: nn.Module, tmp_path: Path) -> None:
    for name, line in {
        "resnet81": "model.name=resnet81: timm has no such model; did you mean resnet18?",
        "resnet18.a1_in2k": "model.name=resnet18.a1_in2k: timm has no such model; did you mean "
        "resnet18.a1_in1k?",
    }.items():
        with pytest.raises(ConfigError) as error:
            make_model(compose("model=timm", f"model.name={name}", "data=synthetic"))
        assert str(error.value).startswith(line)
    with pytest.raises(ConfigError, match=r"are named in model.name; type DEFAULT"):
        compose(*MODEL, "model.weights=IMAGENET1K_V1")
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    config = compose(*MODEL, *SIZE, "model.weights=DEFAULT")
    with pytest.raises(MissingDataError, match=r"the weights of \S+ cannot be downloaded") as error:
        read_starting_weights(config, make_model(config))
    assert f"of https://huggingface.co/timm/{NAME} elsewhere" in str(error.value)
