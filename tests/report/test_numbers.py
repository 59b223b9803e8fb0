"""The numbers of a run's page, against torchmetrics, plain loops and Hydra."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.classification as tm
from torch import Tensor

from convtrain.data.images import Images
from convtrain.gradients.reading import ABSENT, NONFINITE, ZERO, read_norms
from convtrain.gradients.record.store import Store
from convtrain.report.calibration import calibration_of
from convtrain.report.changes import changes, defaults
from convtrain.report.classes import confusion_of, counts_of, label_counts, most_confused
from convtrain.report.filters import as_pictures, read_filters
from convtrain.report.headline import remarks
from convtrain.report.mistakes import most_confident, read_pictures, store_pictures
from convtrain.report.record import read_condensed
from convtrain.run.curves import Curve
from convtrain.training.checkpoint_file import save_checkpoint
from tests.conftest import compose

CLASSES, IMAGES = 6, 400
NAMES = list("abcdef")


@pytest.fixture(scope="module")
def predictions() -> tuple[Tensor, Tensor]:
    """Probabilities (N, C) and targets (N); class 5 has no image and class 4 is never predicted."""
    made = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(IMAGES, CLASSES, generator=made)
    targets = torch.randint(CLASSES - 1, (IMAGES,), generator=made)
    logits[torch.arange(IMAGES), targets] += 1.5
    logits[:, 4] = -20
    return logits.softmax(1), targets


def test_numbers_by_class_are_those_of_torchmetrics(predictions: tuple[Tensor, Tensor]) -> None:
    probabilities, targets = predictions
    guessed = probabilities.argmax(1)
    confusion = confusion_of(targets.numpy(), guessed.numpy(), CLASSES)
    expected = tm.MulticlassConfusionMatrix(CLASSES)(guessed, targets)
    np.testing.assert_array_equal(confusion, expected)
    counts = counts_of(confusion, NAMES)
    for metric, ours in (
        (tm.MulticlassPrecision, counts.precision),
        (tm.MulticlassRecall, counts.recall),
        (tm.MulticlassF1Score, counts.f1),
    ):
        theirs = metric(CLASSES, average=None)(guessed, targets)
        np.testing.assert_allclose(np.nan_to_num(ours), theirs, rtol=1e-6)
    assert np.isnan(counts.recall[5])  # no image of it: undefined and not 0
    assert np.isnan(counts.precision[4])  # never predicted
    assert counts.worst()[0] == 4
    assert 5 not in counts.worst()


def test_the_most_confused_pairs_are_those_of_a_loop(predictions: tuple[Tensor, Tensor]) -> None:
    probabilities, targets = predictions
    guessed = probabilities.argmax(1)
    counted = {
        (a, b): int(((targets == a) & (guessed == b)).sum())
        for a in range(CLASSES)
        for b in range(CLASSES)
        if a != b
    }
    found = most_confused(confusion_of(targets.numpy(), guessed.numpy(), CLASSES), 5)
    assert [each.images for each in found] == sorted(counted.values(), reverse=True)[:5]
    for each in found:
        assert counted[each.true, each.predicted] == each.images
        assert each.part == pytest.approx(each.images / int((targets == each.true).sum()))
    assert most_confused(np.eye(3, dtype=np.int64), 5) == []


def test_labels_are_counted_as_by_torchmetrics() -> None:
    made = torch.Generator().manual_seed(1)
    targets = torch.rand(50, 4, generator=made) > 0.6
    guessed = torch.rand(50, 4, generator=made) > 0.5
    counts = label_counts(targets.numpy(), guessed.numpy(), list("abcd"))
    theirs = tm.MultilabelF1Score(4, average=None)(guessed.int(), targets.int())
    np.testing.assert_allclose(counts.f1, theirs, rtol=1e-6)


def test_the_calibration_error_is_that_of_torchmetrics(predictions: tuple[Tensor, Tensor]) -> None:
    probabilities, targets = predictions
    confidence, guessed = probabilities.max(1)
    found = calibration_of(confidence.numpy(), (guessed == targets).numpy())
    theirs = tm.MulticlassCalibrationError(CLASSES, n_bins=15, norm="l1")(probabilities, targets)
    assert found.error == pytest.approx(float(theirs), abs=1e-6)
    assert found.images.sum() == IMAGES
    certain = calibration_of(np.array([1.0, 1.0]), np.array([True, False]))
    assert (certain.error, certain.overconfident) == (0.5, 0.5)


def test_the_defaults_are_those_that_hydra_composes() -> None:
    config = compose()
    assert defaults() == config.model_dump(by_alias=True)
    assert changes(config.model_dump(by_alias=True)) == []


def test_changes_are_the_keys_that_were_typed() -> None:
    typed = ("optimizer.lr=0.1", "network.layers.0.Conv2d.out_channels=8", "data.root='<b>'")
    found = {key: (a, b) for key, a, b in changes(compose(*typed).model_dump(by_alias=True))}
    assert found == {
        "optimizer.lr": ("0.03", "0.1"),
        "network.layers.0.Conv2d.out_channels": ("32", "8"),
        "data.root": ("data", "<b>"),
    }


@pytest.mark.parametrize("most", [4, 7, 1000])
def test_a_condensed_record_keeps_the_largest_norm_and_every_trouble(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the whole record in one array; 37 steps, b unfrozen late, c always zero."""
    monkeypatch.setattr("convtrain.gradients.record.store.ROWS_PER_PIECE", 30)
    store, made = Store(tmp_path), np.random.default_rng(0)
    for begin in range(1, 38, 5):
        steps = range(begin, min(begin + 5, 38))
        rows = [(s, n) for s in steps for n in ("a.weight", "a.bias", "b.weight", "c.weight")]
        rows = [(s, n) for s, n in rows if n != "b.weight" or s > 12]
        norms = [0.0 if n == "c.weight" else float(made.random()) for _, n in rows]
        if (bad := (9, "a.bias")) in rows:
            norms[rows.index(bad)] = np.nan
        columns = {"step": [s for s, _ in rows], "parameter": [n for _, n in rows], "norm": norms}
        store.append("parameters", columns)
    found, whole = read_condensed(tmp_path, most), read_norms(tmp_path).by_layer()
    assert found is not None
    assert (found.first, found.recorded) == (1, 37)
    assert found.last >= 37
    groups = found.largest.shape[1]
    assert groups <= most
    size = 2 ** int(np.ceil(np.log2(max(37 / most, 1))))
    assert groups == -(-37 // size)
    for row, layer in enumerate(found.layers):
        values = whole.values[:, whole.names.index(layer)]
        for group in range(groups):
            part = values[group * size : (group + 1) * size]
            finite = part[np.isfinite(part)]
            present = whole.present[group * size : (group + 1) * size, whole.names.index(layer)]
            if layer == "a":
                assert found.largest[row, group] == pytest.approx(
                    max(finite, default=np.nan), nan_ok=True
                )
                assert (found.kinds[row, group] == NONFINITE) == (len(finite) < present.sum())
            elif not present.any():
                assert found.kinds[row, group] == ABSENT
            else:
                assert found.kinds[row, group] == (ZERO if layer == "c" else -1)
    assert read_condensed(tmp_path / "nothing") is None


def test_a_recorded_step_stands_for_those_until_the_next(tmp_path: Path) -> None:
    columns = {"step": [1, 11, 21], "parameter": ["a.weight"] * 3, "norm": [1.0, 2.0, 3.0]}
    Store(tmp_path).append("parameters", columns)
    found = read_condensed(tmp_path)
    assert found is not None
    assert (found.first, found.last, found.recorded) == (1, 21, 3)
    assert found.largest[0].tolist() == [1.0] * 10 + [2.0] * 10 + [3.0]
    assert (found.early[0], found.late[0]) == (2.0, 2.0)  # too few steps for a trend


def test_the_first_filters_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    weight = torch.tensor([[[[1.0, 0.0], [-2.0, 0.5]]]])
    file = tmp_path / "x.ckpt"
    save_checkpoint({"state_dict": {"model.b": torch.ones(3), "model.conv.weight": weight}}, file)
    found = read_filters(file)
    assert found is not None
    assert found[0] == "conv"
    np.testing.assert_array_equal(found[1], weight)
    (picture,) = as_pictures(found[1])
    assert picture[:, 0, 1].tolist() == [255, 255, 255]  # zero is white
    assert picture[2, 1, 0] > picture[0, 1, 0]  # negative is blue
    assert picture[0, 0, 0] > picture[2, 0, 0]  # positive is red
    save_checkpoint({"state_dict": {"model.conv.weight": torch.ones(8, 16, 3, 3)}}, file)
    assert read_filters(file) is None
    file.write_bytes(b"no checkpoint")
    assert read_filters(file) is None


def test_pictures_of_mistakes_are_stored_small(tmp_path: Path) -> None:
    wrong, probability = np.array([1, 0, 1, 1], bool), np.array([0.5, 0.99, 0.9, 0.7])
    rows = most_confident(wrong, probability, 2)
    assert rows.tolist() == [2, 3]
    pixels = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 130, 100).contiguous()
    store_pictures(Images(pixels, torch.zeros(4)), rows, tmp_path / "pictures.npz")
    stored = read_pictures(tmp_path / "pictures.npz")
    assert list(stored) == [2, 3]
    assert stored[2].shape == (3, 43, 33)
    assert (stored[2] == 2).all()
    assert read_pictures(tmp_path / "none.npz") == {}


def test_a_gap_may_be_that_of_an_average_that_lags_behind() -> None:
    curves = {
        name: Curve([8], [1.0], [value])
        for name, value in (("train/acc_epoch", 0.9), ("val/acc", 0.1))
    }
    assert "trainer.ema" not in str([*remarks({}, None, curves, None)])
    said = [*remarks({"trainer": {"ema": 0.9}}, None, curves, None)]
    assert said[-1].endswith("a trainer.ema below 0.9 would make the gap smaller.")
