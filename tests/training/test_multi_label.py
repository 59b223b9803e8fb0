"""Images with any number of labels: floats (N, labels) as targets, against torchmetrics."""

import operator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import multilabel_accuracy

from convtrain.assembly import make_data
from convtrain.data.images import Images, Splits
from convtrain.data.labelled_files import Division, LabelledFiles, divide_files
from convtrain.errors import ConfigError
from convtrain.pipeline import assemble, train_assembled
from convtrain.report.page import write_report
from convtrain.run.directory import Run
from convtrain.training.objectives import check_loss_targets, make_metrics
from convtrain.training.running_metrics import RunningMetrics, means
from convtrain.use.evaluate import evaluate
from convtrain.use.load import load
from tests.conftest import QUICK, compose, slow_but
from tests.training.test_resume import SMALL, Whole


def labelled_quadrants(count: int, seed: int) -> Images:
    """Return noise whose quadrants are bright or not; each is a label, so 0 to 4 are present."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, 4, generator=generator) < 0.5).float()
    bright = (labels * 150).view(count, 1, 2, 2)
    noise = torch.randint(0, 100, (count, 3, 8, 8), generator=generator)
    enlarged = bright.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return Images((noise + enlarged).to(torch.uint8), labels)


@pytest.mark.parametrize(
    "loss", slow_but(["bce", "bce loss.class_weights=balanced", "focal loss.form=sigmoid"], "bce")
)
def test_a_network_learns_labels_and_its_accuracy_is_torchmetrics(
    loss: str, tmp_path: Path
) -> None:
    train, val, test = (labelled_quadrants(n, seed=n) for n in (400, 100, 101))
    splits = Splits(train, val, test)
    overrides = ("data=synthetic", "data.shape=[3,8,8]", "data.num_classes=4", "trainer=cpu",
                 "network.layers=[Flatten,{Linear:{out_features:4}}]", "trainer.max_epochs=5",
                 "data.batch_size=20", "augment.mixup=0.5", "optimizer.lr=0.05",
                 f"loss={loss}")  # fmt: skip
    config = compose(*QUICK, *" ".join(overrides).split())
    parts = assemble(config, tmp_path, splits=splits)
    result = train_assembled(parts)
    with torch.no_grad():
        logits = parts.task.model(parts.data.normalise(splits.test.read(torch.arange(101))))
    expected = multilabel_accuracy(logits, splits.test.labels.int(), num_labels=4)
    assert result["test/acc"] == pytest.approx(expected.item())
    assert result["test/acc"] > 0.9


def test_a_label_that_no_validation_image_has_is_named_beside_the_metrics(
    caplog: pytest.LogCaptureFixture,
) -> None:
    train, val, test = (labelled_quadrants(n, seed=n) for n in (40, 20, 21))
    val.labels[:, 2] = 0
    config = compose("data=synthetic", "data.shape=[3,8,8]", "data.num_classes=4", "loss=bce",
                     "metrics=f1", "data.batch_size=20")  # fmt: skip
    data = make_data(config, Splits(train, val, test))
    metric = make_metrics(config, data)["f1"]
    assert "no validation image has the label 2, so that means over the labels" in caplog.text
    assert "test image" not in caplog.text
    metric.update(val.labels, val.labels.int())  # predictions that are right
    assert metric.compute() == 0.75


def test_files_are_divided_so_that_each_split_has_the_rare_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    chances = torch.tensor([0.5, 0.3, 0.0, 0.0])
    labels = (torch.rand(1000, 4, generator=generator) < chances).float()
    labels[::125, 2] = labels[5::500, 3] = 1  # 8 and 2 images
    found = LabelledFiles(
        [Path(str(i)) for i in range(1000)], labels, {"train": torch.arange(1000)}
    )
    divided = divide_files(found, Division(list("abcd"), 0.2, 0.25, split_seed=0, limit=None))
    assert sorted(map(int, map(str, divided.files))) == list(range(1000))
    parts = {name: divided.labels[part] for name, part in divided.splits.items()}
    for name, part in (("test", 0.25), ("val", 0.15), ("train", 0.6)):
        assert len(parts[name]) == pytest.approx(1000 * part, abs=3)
        assert parts[name].sum(0)[:2] == pytest.approx(labels.sum(0)[:2] * part, rel=0.1)
        assert parts[name][:, 2].sum() == round(8 * part)


def test_mixed_labels_count_with_their_fractions() -> None:
    running = RunningMetrics(multi_label=True)
    targets = torch.tensor([[1.0, 0.25, 0.0, 1.0]])
    running.add(torch.tensor(0.5), torch.tensor([[2.0, 3.0, -1.0, -4.0]]), targets)
    assert means(running.sums) == (0.5, pytest.approx((1 + 0.25 + 1 + 0) / 4))


def test_balanced_sampling_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.sampling=balanced: draws each class equally"):
        check_loss_targets(compose("loss=bce", "data.sampling=balanced"), multi_label=True)


@pytest.mark.parametrize(
    ("loss", "line"),
    [
        (["loss=cross_entropy"], "loss=cross_entropy: expects one class an image"),
        (["loss=focal"], "loss.form=softmax: expects one class an image"),
    ],
)
def test_a_loss_that_expects_one_class_is_refused(loss: list[str], line: str) -> None:
    check_loss_targets(compose(*loss), multi_label=False)
    with pytest.raises(ConfigError, match=line):
        check_loss_targets(compose(*loss), multi_label=True)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["functional", "nn"])
def test_a_table_of_labels_trains_resumes_is_evaluated_and_predicts(
    style: str, tmp_path: Path
) -> None:
    names, images = ["ant", "bee", "cat", "dog"], labelled_quadrants(80, seed=1)
    assert isinstance(images.pixels, torch.Tensor)
    rows = ["path,labels"]
    for index, (pixels, labels) in enumerate(zip(images.pixels, images.labels, strict=True)):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
        has = [name for name, label in zip(names, labels, strict=True) if label]
        rows.append(f"{index}.png,{'|'.join(has)}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    small = (each for each in SMALL if not each.startswith(("data", "network")))
    whole = Whole(tmp_path, (
        *small, "data=csv", f"data.file={tmp_path / 'labels.csv'}", "data.label_separator='|'",
        "data.shape=[3,8,8]", "data.batch_size=8", "data.test_fraction=0.3", "trainer.max_epochs=9",
        "network.layers=[Flatten,{Linear:{out_features:4}}]", "optimizer.lr=0.05", "loss=bce",
        "loss.class_weights=balanced", "loss.label_smoothing=0.05", "augment.mixup=0.3",
        "metrics=[f1,auroc]", f"model={style}",
    ))  # fmt: skip
    assert whole.check_killed("batch", 20)
    assert whole.result["test/f1"] > 0.9
    run = tmp_path / "whole"
    found = evaluate(run)
    assert found["multi_label"]
    for name in ("test/loss", "test/acc", "test/f1", "test/auroc"):
        assert found["metrics"][name] == whole.result[name]
    predicted = load(run).predict([tmp_path / f"{index}.png" for index in range(20)]).labels
    present = images.labels[:20].bool().tolist()
    right = [[n for n, has in zip(names, row, strict=True) if has] for row in present]
    assert sum(map(operator.eq, predicted, right)) > 16
    assert "An image has any number of labels" in write_report(Run(run)).read_text()
