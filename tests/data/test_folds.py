"""K folds: every training image validates once, in each source, and the test images stay."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from convtrain.assembly import make_data
from convtrain.command.configure import configure
from convtrain.config.data_sections import Fold, SplitSizes
from convtrain.config.identity import differing
from convtrain.config.schema import Config
from convtrain.data.cache import SUFFIX
from convtrain.data.images import Images, Splits, divide_labels
from convtrain.data.labelled_files import Division, LabelledFiles, divide_files
from convtrain.data.sources.custom import load as load_custom
from convtrain.data.sources.image_folder import load as load_folder
from convtrain.errors import ConfigError
from tests.conftest import compose
from tests.data.test_custom import OPTIONS, Numbered

FOLDS = 3
LABELS = torch.tensor([0, 1, 2, 1] * 7 + [1, 2])


def make_folder(root: Path, *splits: str) -> None:
    """Make 7 cats and 15 dogs of different grey levels in each split."""
    for number, split in enumerate(splits):
        for name, levels in (("cat", range(7)), ("dog", range(7, 22))):
            folder = root / split / name
            folder.mkdir(parents=True)
            for level in levels:
                Image.new("L", (2, 2), number * 50 + level).save(folder / f"{level}.png")


def of_fold(config: Config, fold: int) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"fold": fold})})


def contents(images: Images) -> Counter[bytes]:
    pixels = images.read(torch.arange(len(images)))
    return Counter(
        image.numpy().tobytes() + label.numpy().tobytes()
        for image, label in zip(pixels, images.labels, strict=True)
    )


def classes(images: Images) -> list[int]:
    return torch.bincount(images.labels).tolist()


@pytest.mark.parametrize(
    ("overrides", "images"),
    [
        (["data.limit=101"], 101),
        (["data=synthetic", "data.train_size=203", "data.num_classes=7"], 203),
        (["data=synthetic", "data.train_size=203", "data.limit=61"], 61),
        (["data=image_folder"], 19),  # 1 of 7 cats and 2 of 15 dogs are for testing
        (["data=image_folder", "data.limit=13"], 13),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_training_image_validates_in_one_fold_and_the_test_images_stay(
    overrides: list[str], images: int, tmp_path: Path
) -> None:
    if is_folder := overrides[0] == "data=image_folder":
        make_folder(tmp_path, "")
        overrides = [*overrides, f"data.root={tmp_path}", "data.shape=[3,2,2]"]
    asked = [*overrides, "data.batch_size=4", f"data.folds={FOLDS}", "data.fold=0"]
    config = compose("network=conv2d", *asked)
    folds = [make_data(of_fold(config, fold)).splits for fold in range(FOLDS)]
    everything = contents(folds[0].train) + contents(folds[0].val)
    assert everything.total() == images
    assert sum((contents(splits.val) for splits in folds), Counter()) == everything
    for fold, splits in enumerate(folds):
        assert contents(splits.train) + contents(splits.val) == everything
        assert contents(splits.test) == contents(folds[0].test)
        found = SplitSizes(*map(len, splits.images))
        assert of_fold(config, fold).data.split_sizes() == (None if is_folder else found)
    again = make_data(of_fold(config, 1)).splits
    assert torch.equal(again.val.labels, folds[1].val.labels)
    assert contents(again.val) == contents(folds[1].val) != contents(folds[0].val)
    for of_class in zip(*(classes(splits.val) for splits in folds), strict=True):
        assert max(of_class) - min(of_class) <= 1


def test_folds_have_the_classes_and_sizes_of_equal_shares() -> None:
    parts = [
        divide_labels(LABELS, val_fraction=Fold(number, 4), test_fraction=0.1, seed=5)
        for number in range(4)
    ]
    assert len({tuple(part["test"].tolist()) for part in parts}) == 1
    rest = LABELS[torch.cat([parts[0]["train"], parts[0]["val"]])].bincount()
    for part in parts:
        share = LABELS[part["val"]].bincount() - rest / 4
        assert share.abs().max() < 1
        assert abs(len(part["val"]) - int(rest.sum()) / 4) < 1
        assert part["train"].equal(part["train"].sort().values)
    other = divide_labels(LABELS, val_fraction=Fold(0, 4), test_fraction=0.1, seed=6)
    assert not other["val"].equal(parts[0]["val"])


@pytest.mark.parametrize("store_size", [None, 4])
def test_all_folds_read_one_file_of_the_cache(store_size: int | None, tmp_path: Path) -> None:
    make_folder(tmp_path / "images", "")

    def load(fold: int, memory_gib: float) -> Splits:
        return load_folder(
            root=str(tmp_path / "images"), classes=["cat", "dog"], shape=[1, 2, 2], resize="crop",
            val_fraction=Fold(fold, FOLDS, 17), limit=17, test_fraction=0.1, split_seed=0,
            memory_gib=memory_gib, max_pixels=100, store_size=store_size,
            cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip

    for fold in range(FOLDS):
        cached, in_memory = load(fold, 1e-9), load(fold, 1.0)
        for ours, theirs in zip(cached.images, in_memory.images, strict=True):
            indices = torch.arange(len(theirs))
            assert torch.equal(ours.read(indices), theirs.read(indices))
            assert torch.equal(ours.labels, theirs.labels)
    assert len([*(tmp_path / "cache").glob(f"*{SUFFIX}")]) == 1


def test_images_of_several_labels_are_divided_by_the_rarest() -> None:
    labels = torch.stack([torch.ones(60), torch.arange(60) % 3 == 0, torch.arange(60) < 7], 1)
    files = LabelledFiles(
        [Path(str(n)) for n in range(60)], labels.float(), {"train": torch.arange(60)}
    )

    def divided(validation: float | Fold) -> dict[str, list[str]]:
        division = Division(["a", "b", "c"], validation, 0.2, split_seed=1, limit=None)
        found = divide_files(files, division)
        return {name: [str(found.files[i]) for i in part] for name, part in found.splits.items()}

    folds = [divided(Fold(number, 4)) for number in range(4)]
    assert all(fold["test"] == divided(0.1)["test"] for fold in folds)
    assert len({name for fold in folds for name in fold["val"]}) == 60 - len(folds[0]["test"])
    rare = [sum(int(name) < 7 for name in fold["val"]) for fold in folds]
    assert max(rare) - min(rare) <= 1 <= sum(rare)


def test_the_one_dataset_of_a_user_is_divided_into_folds() -> None:
    def load(fold: int, limit: int | None = None) -> Splits:
        options = {**OPTIONS, "val_fraction": Fold(fold, FOLDS, limit)}
        return load_custom({"data._target_=mine": lambda: Numbered(60)}, **options)

    folds = [load(fold) for fold in range(FOLDS)]
    assert sum((contents(s.val) + contents(s.test) for s in folds), Counter()).total() == 48 + 36
    assert len(sum((contents(splits.val) for splits in folds), Counter())) == 48
    limited = load(1, limit=20)
    assert (len(limited.train), len(limited.val), len(limited.test)) == (13, 7, 12)


WRONG = {
    "data.folds=5": "data.folds=5: add data.fold=0 for one fold, or train all: ",
    "data.fold=1": "data.fold=1: is one of several parts; add data.folds=5",
    "data.folds=5 data.fold=5": "data.fold=5: must be below data.folds=5; the first is data.fold=0",
    "data.folds=1 data.fold=0": "data.folds=1: must be greater than or equal to 2 ",
    "data.folds=150 data.fold=0": "data.folds=150: needs at least 1500 images, one of each class",
    "data.folds=5 data.fold=0 data.limit=49 data.batch_size=8": "data.limit=49: must be at least",
    "data=synthetic data.fill=ones data.folds=5 data.fold=0":
        "data.folds=5: data.fill=ones shows the same images in every split",
}  # fmt: skip


@pytest.mark.parametrize(("typed", "line"), WRONG.items(), ids=WRONG)
def test_a_mistake_is_one_line_before_any_data_is_read(typed: str, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configure(typed.split())
    (found,) = str(raised.value).splitlines()
    assert found.startswith(line)


def test_images_that_validate_already_and_small_classes_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "own", "train", "val")
    asked = ["data=image_folder", "data.batch_size=4", "data.folds=5", "data.fold=0"]
    with pytest.raises(ConfigError, match=r"data\.folds=5: each fold .* validation images of thei"):
        configure([*asked, f"data.root={tmp_path / 'own'}"])
    with pytest.raises(ConfigError, match=r"data\.folds=5: each fold .* validation images of thei"):
        divide_labels(LABELS, val_fraction=Fold(0, 5), seed=0, given=("train", "val"))
    few = (
        r"data\.folds=8: .* at least 8 images of each class; too few of class cat \(7\); set fewer"
    )
    with pytest.raises(ConfigError, match=few):
        divide_labels(LABELS, val_fraction=Fold(0, 8), seed=0, names=["cat", "dog", "bee"])


def test_a_run_of_one_fold_is_not_resumed_as_another() -> None:
    config = compose("data.folds=3", "data.fold=0")
    assert differing(config, of_fold(config, 1), resumed=True) == ["data.fold"]
