"""What is said of datasets without reading them is what one finds in them."""

import os
from pathlib import Path

import pytest
import yaml

from convtrain.assembly import make_data
from convtrain.config.data_sections import PUBLISHED
from convtrain.data.images import Splits
from convtrain.data.sources.torchvision import CLASSES, checksums
from convtrain.run.commands import CONFIGS
from tests.conftest import compose


def counted(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.val), len(splits.test)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.val_fraction=0.37", "data.test_fraction=0.05"],
        ["data.val_fraction=0.999", "data.batch_size=1"],
        ["data.limit=200", "data.overfit_batches=2"],
        ["data=synthetic", "data.train_size=103", "data.test_size=7", "data.num_classes=7"],
        ["data=synthetic", "data.train_size=100", "data.fill=ones", "data.test_size=500"],
        ["data=synthetic", "data.classes=[a,b]", "data.num_classes=null", "data.limit=90"],
    ],
    ids=" ".join,
)
def test_the_sizes_of_the_splits_are_those_of_the_data(overrides: list[str]) -> None:
    config = compose("network=conv2d", *overrides)
    assert config.data.split_sizes() == counted(make_data(config).splits)


def test_every_dataset_is_known() -> None:
    assert set(PUBLISHED) == {*CLASSES, "digits"}
    for name, published in PUBLISHED.items():
        file = yaml.safe_load((CONFIGS / "data" / f"{name}.yaml").read_text())
        assert tuple(file["shape"]) == published.shape
        assert file["num_classes"] == len(file["classes"]) == len(published.training)
    totals = {name: (sum(p.training), p.test) for name, p in PUBLISHED.items()}
    assert totals["svhn"] == (73_257, 26_032)
    assert totals["digits"] == (1797, 0)
    for name in ("mnist", "fashion_mnist", "kmnist"):
        assert totals[name] == (60_000, 10_000)
    for name in ("cifar10", "cifar100"):
        assert totals[name] == (50_000, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_sizes_are_those_of_the_files(name: str) -> None:
    root = os.environ.get("CONVTRAIN_DATA", "data")
    if not all((Path(root) / file).is_file() for file in checksums(name)):
        pytest.skip(f"{name} is not in {root}; set CONVTRAIN_DATA")
    config = compose(f"data={name}", f"data.root={root}", "data.val_fraction=0.0833333")
    assert config.data.split_sizes() == counted(make_data(config).splits)
