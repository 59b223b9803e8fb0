"""``model.weights``: of torchvision, of a file and of a run, in both styles, and what is said."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from convtrain.assembly import make_model
from convtrain.config.schema import Config
from convtrain.training.starting_weights import StartingWeights, read_starting_weights
from tests.conftest import compose, slow_but
from tests.network.known import CLASSES, NETWORKS, fill, known

STYLES = ("nn", "functional")
IMAGES = ("data=synthetic", "data.shape=[3,64,64]", "data.train_size=2000")


def filled(name: str) -> nn.Module:
    """Return torchvision's own model, with numbers in place of trained weights."""
    model = known(name).eval()
    fill(model)
    return model


def logits(model: nn.Module, channels: int = 3) -> Tensor:
    images = torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(images)


def begun(config: Config) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model as a training begins with it, and what provenance.json says of it."""
    torch.manual_seed(config.seed)
    model = make_model(config)
    found = read_starting_weights(config, model)
    assert isinstance(found, StartingWeights)
    return model, found.load(model, config, None)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of downloaded weights; nothing can be downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def no_network(*arguments: object, **options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "torch" / "hub" / "checkpoints"


def put(model: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """Put a file of weights where torchvision's would be, under the hash of its own content."""
    state = model.state_dict()
    if name == "googlenet":  # as in torchvision's file
        state["aux1.conv.conv.weight"] = torch.ones(2)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "new")
    digits = hashlib.sha256((folder / "new").read_bytes()).hexdigest()[:8]
    path = (folder / "new").rename(folder / f"{name}-{digits}.pth")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(type(weights), "url", f"https://example.org/{path.name}")
    return path


@pytest.mark.parametrize("name", slow_but(NETWORKS[1:], "resnet18", "googlenet"))
def test_published_weights_give_torchvisions_own_logits_in_both_styles(
    name: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = filled(name)
    file = put(theirs, hub, monkeypatch, name)
    expected = logits(theirs)
    for model in (*STYLES, "torchvision"):
        chosen = f"model.name={name}" if model == "torchvision" else f"network={name}"
        overrides = (
            f"model={model}",
            chosen,
            "model.weights=DEFAULT",
            f"data.num_classes={CLASSES}",
        )
        ours, said = begun(compose(*IMAGES, *overrides))
        assert torch.equal(logits(ours), expected)
        assert said["sha256"][:8] in file.name
        assert said["loaded"] == len(theirs.state_dict())
        assert said["replaced"] == []
        assert said["left_over"] == (name == "googlenet")


def test_the_head_of_other_classes_keeps_its_own_initial_weights(tmp_path: Path) -> None:
    theirs = filled("resnet18")
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}},
               tmp_path / "trained.pth")  # fmt: skip
    theirs.fc = nn.Identity()
    features = logits(theirs)
    for style in STYLES:
        overrides = (*IMAGES, "network=resnet18", f"model={style}", "data.num_classes=7")
        config = compose(*overrides, f"model.weights={tmp_path / 'trained.pth'}")
        torch.manual_seed(config.seed)
        fresh = make_model(compose(*overrides)).state_dict()
        model, said = begun(config)
        head = fresh["linear_1.weight"], fresh["linear_1.bias"]
        assert torch.equal(logits(model), nn.functional.linear(features, *head))
        assert said["summary"] == [
            f"model.weights={tmp_path / 'trained.pth'}: loaded 120 tensors of trained.pth; "
            f"replaced linear_1.weight, linear_1.bias (7 classes in place of 1000); left over 0"
        ]
