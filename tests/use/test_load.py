"""``convtrain.load``: the trained model of a run, its classes and its preprocessing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

import convtrain
from convtrain.assembly import make_data, make_model
from convtrain.errors import ConfigError, ConvtrainError, CorruptDataError, MissingDataError
from convtrain.run.directory import Run
from convtrain.training.checkpoint_file import load_checkpoint, save_checkpoint
from convtrain.training.precision import make_precision
from convtrain.use.predictions import Predictions
from convtrain.use.trained import Trained
from tests.conftest import Train, compose
from tests.training.forged import Payload, forge

BEST = "callbacks.checkpoint.test_with=best"
TINY = ("data.limit=128", "logger=none", "scheduler=none", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits; tests only read it."""
    from convtrain.pipeline import train

    path = tmp_path_factory.mktemp("load") / "run"
    overrides = [*TINY, BEST, "trainer=cpu", "callbacks.progress_bar=false"]
    train(compose(*overrides), path, overrides)
    return path


@pytest.fixture(scope="module")
def trained(folder: Path) -> Trained:
    return convtrain.load(folder, device="cpu")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    pixels = make_data(compose(*TINY, "trainer=cpu")).splits.test.pixels
    assert isinstance(pixels, torch.Tensor)
    return pixels


@pytest.mark.parametrize("style", [None, "nn", "functional"])
def test_logits_are_those_of_the_model_with_the_weights_of_the_tested_checkpoint(
    folder: Path, images: torch.Tensor, style: Any
) -> None:
    result = Run(folder).read_result()
    assert result is not None
    tested = result["tested_checkpoint"]
    assert tested is not None
    assert tested.startswith("best")
    config = compose(*TINY, "trainer=cpu")
    model, state = make_model(config), load_checkpoint(folder / "checkpoints" / tested)
    model.load_state_dict({k.removeprefix("model."): v for k, v in state["state_dict"].items()})
    mean, std = config.data.mean[0], config.data.std[0]
    expected = model.eval()((images / 255 - mean) / std)

    trained = convtrain.load(folder, style=style, device="cpu")
    logits = trained.logits(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits, convtrain.load(folder, device="cpu").logits(images))
    assert not trained.model.training
    assert trained.checkpoint.name == tested
    assert trained.classes == [str(digit) for digit in range(10)]


def test_every_kind_of_image_gives_the_same_bits(
    trained: Trained, images: torch.Tensor, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "inner" / "c.png"]
    pictures = [Image.fromarray(pixels[0].numpy()) for pixels in images[:3]]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    arrays = [np.asarray(picture) for picture in pictures]
    expected = trained.probabilities(trained.logits(images[:3]))
    given: list[Any] = [
        tmp_path,
        str(tmp_path),
        paths,
        pictures,
        arrays,
        (each for each in arrays),
        np.stack(arrays)[..., None],
        [array[..., None].repeat(3, axis=2) for array in arrays],  # colour, and the model is grey
        images[:3],
        images[:3] / 255,
        list(images[:3]),
        [paths[0], pictures[1], images[2].float() / 255],
        [array.repeat(3, axis=0).repeat(3, axis=1) for array in arrays],
    ]
    for each in given[:-1]:
        assert torch.equal(trained.predict(each).probabilities, expected)
    assert torch.allclose(trained.predict(given[-1]).probabilities, expected, atol=0.2)  # resized
    for size in (1, 2):
        found = trained.predict(images[:3], batch_size=size).probabilities
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_predictions_name_classes(trained: Trained, images: torch.Tensor) -> None:
    found = trained.predict(images[:4], topk=2)
    for label, top, row in zip(found.labels, found.top, found.probabilities, strict=True):
        order = row.argsort(descending=True)[:2].tolist()
        assert label == str(order[0])
        assert top == [(str(index), float(row[index])) for index in order]
    assert len(found) == 4


def test_of_any_number_of_labels_those_above_one_half_are_present() -> None:
    probabilities = torch.tensor([[0.9, 0.2, 0.51], [0.1, 0.5, 0.4]])
    found = Predictions(probabilities, ["cat", "dog", "fox"], multi_label=True, topk=1)
    assert found.labels == [["cat", "fox"], []]
    assert [[name for name, _ in row] for row in found.top] == [["cat"], ["dog"]]


def test_a_model_without_classes_predicts_none(train: Train, tmp_path: Path) -> None:
    train("experiment=conv2d_nn", "logger=none")
    trained = convtrain.load(tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match="so it predicts none"):
        trained.predict(torch.zeros(2, *trained.preprocessing.shape, dtype=torch.uint8))


def test_floats_between_the_levels_are_normalised_as_they_are(
    trained: Trained, images: torch.Tensor
) -> None:
    blurred = images[:2] / 255 * 0.9
    mean, std = trained.preprocessing.mean[0], trained.preprocessing.std[0]
    expected = trained.model((blurred - mean) / std).softmax(1)
    found = trained.predict(blurred).probabilities
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


WRONG_IMAGES: dict[str, tuple[Any, str]] = {
    "floats above 1": (torch.full((1, 1, 8, 8), 3.0), "give uint8 or floats in 0-1"),
    "floats of another size": (torch.full((1, 9, 9), 0.1234), "the model takes (1, 8, 8)"),
    "no number": (torch.full((1, 8, 8), float("nan")), "not finite"),
    "channels": (torch.zeros(2, 8, 8, dtype=torch.uint8), "has 2 channels"),
    "dimensions": (torch.zeros(2, 1, 1, 8, 8, dtype=torch.uint8), "expected (channels, height"),
    "empty": (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), "the batch holds no image"),
    "none": ([], "no image to predict"),
    "kind": (3, "images is a int; give a path"),
    "a place": ([np.zeros((8, 8), np.uint8), np.full((8, 8), 700)], "image 1: "),
    "no file": ("lost.png", "lost.png: there is no such file"),
}


@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_what_is_no_image_is_one_line(trained: Trained, case: str) -> None:
    given, line = WRONG_IMAGES[case]
    with pytest.raises(ConvtrainError) as error:
        trained.predict(given)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_file_is_named(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(CorruptDataError, match=r"a\.png: cannot be decoded"):
        trained.predict(tmp_path / "a.png")


def test_a_run_of_a_folder_loads_after_the_folder_is_gone(train: Train, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for label, level in (("dark", 20), ("light", 230)):
        (data / label).mkdir(parents=True)
        for index in range(20):
            Image.new("RGB", (12, 10), (level + index,) * 3).save(data / label / f"{index}.png")
    train("data=image_folder", f"data.root={data}", "data.shape=[3,8,8]", "data.batch_size=8",
          "network=resnet8", "logger=none")  # fmt: skip
    data.rename(tmp_path / "elsewhere")
    trained = convtrain.load(tmp_path / "run", device="cpu")
    assert trained.classes == ["dark", "light"]
    assert len(trained.predict(tmp_path / "elsewhere")) == 40


def test_other_checkpoints_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    last = load_checkpoint(folder / "checkpoints" / "last.ckpt")
    copy = tmp_path / "copy.ckpt"
    save_checkpoint(last, copy)
    weight = next(iter(convtrain.load(folder, "last", device="cpu").model.state_dict()))
    for chosen in ("last", "last.ckpt", copy):
        state = convtrain.load(folder, chosen, device="cpu").model.state_dict()
        assert torch.equal(state[weight], last["state_dict"][f"model.{weight}"])
    assert convtrain.load(folder, "best", device="cpu").checkpoint.name.startswith("best")


def test_a_checkpoint_that_does_not_fit_is_one_line(folder: Path, tmp_path: Path) -> None:
    content = load_checkpoint(folder / "checkpoints" / "last.ckpt")

    def refused(changed: dict[str, Any], line: str) -> None:
        save_checkpoint(changed, tmp_path / "other.ckpt")
        with pytest.raises(CorruptDataError, match=line):
            convtrain.load(folder, tmp_path / "other.ckpt", device="cpu")

    refused({**content, "run_id": "another"}, "is a checkpoint of another run")
    name, tensor = next(iter(content["state_dict"].items()))
    short = name.removeprefix("model.")
    for other, line in (
        ({name: tensor[:1]}, f"{short} has shape"),
        ({"model.x": tensor}, "x is l"),
    ):
        refused({**content, "state_dict": {**content["state_dict"], **other}}, line)
    refused({k: v for k, v in content.items() if k != "state_dict"}, "lacks state_dict")
    forge({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "forged.ckpt")
    with pytest.raises(CorruptDataError):
        convtrain.load(folder, tmp_path / "forged.ckpt", device="cpu")
    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_chosen_is_one_line(folder: Path, tmp_path: Path) -> None:
    wrong: tuple[tuple[dict[str, Any], type[ConvtrainError], str], ...] = (
        ({"checkpoint": "lost"}, MissingDataError, "has best, "),
        ({"style": "jax"}, ConfigError, "choose 'nn' or 'functional'"),
        ({"device": "fast"}, ConfigError, "device=fast: "),
    )
    for options, error, line in wrong:
        with pytest.raises(error, match=line):
            convtrain.load(folder, **options)
    with pytest.raises(MissingDataError, match="not a run"):
        convtrain.load(tmp_path)


def test_random_numbers_of_the_caller_are_left_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    convtrain.load(folder, device="cpu")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("precision", [32, "32-true", 64, "64-true", "bf16-mixed", "16-mixed"])
def test_the_precision_is_the_one_that_lightning_chooses(precision: Any) -> None:
    trainer = pl.Trainer(accelerator="cpu", precision=precision, logger=False)
    expected, made = trainer.precision_plugin, make_precision(precision, "cpu")
    assert (type(made), made.precision) == (type(expected), expected.precision)


def test_a_device_without_values_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="device=meta: it holds no values; choose auto, cpu"):
        convtrain.load(folder, device="meta")
