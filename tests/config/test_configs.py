"""Every YAML file that is shipped composes, validates and says what it is for."""

from pathlib import Path

import numpy as np
import pytest

from convtrain.run.commands import CONFIGS
from tests.conftest import compose

CHOICES = sorted(
    path
    for path in CONFIGS.glob("*/*.yaml")
    if not path.name.startswith("_") and path.parent.name != "hydra"
)
NEEDS_MORE = {
    "model/custom": ["model._target_=mine.Net", "trust=[mine]"],
    "data/custom": ["data._target_=mine.Data", "data.num_classes=2", "trust=[mine]"],
    "loss/custom": ["loss._target_=mine.loss", "trust=[mine]"],
    "optimizer/custom": ["optimizer._target_=mine.Sign", "trust=[mine]"],
    "scheduler/custom": ["scheduler._target_=mine.Sawtooth", "trust=[mine]"],
    "data/image_folder": ["data.root=FOLDER"],
    "experiment/finetune": ["data.root=FOLDER"],
    "data/csv": ["data.file=FOLDER/labels.csv"],
    "data/torchvision": ["data.name=EuroSAT"],
    "data/huggingface": ["data.name=FOLDER", "data.num_classes=2"],
    "data/arrays": ["data.file=FOLDER/arrays.npz"],
    "logger/custom": ["logger._target_=mine.Logger", "trust=[mine]"],
}


def choice(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", CHOICES, ids=choice)
def test_every_choice_composes(path: Path, tmp_path: Path) -> None:
    if path.stem == "huggingface":
        pytest.importorskip("datasets")
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    np.savez(tmp_path / "arrays.npz", images=np.zeros((4, 8, 8, 3)), labels=[0, 1, 0, 1])
    (tmp_path / "labels.csv").write_text("path,label\ncat/1.png,cat\ndog/1.png,dog\n")
    more = [text.replace("FOLDER", str(tmp_path)) for text in NEEDS_MORE.get(choice(path), [])]
    config = compose(f"{path.parent.name}={path.stem}", *more)
    assert config.network.layers


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("experiment/*.yaml")), ids=lambda path: path.stem
)
def test_every_experiment_says_how_to_run_it(path: Path) -> None:
    assert f"python train.py experiment={path.stem}" in path.read_text()
