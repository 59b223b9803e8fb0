"""Class weights and balanced sampling: against plain loops, scikit-learn, and whole runs."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from convtrain.config.schema import Loss
from convtrain.data.augment import Augmentation
from convtrain.data.batches import Batch, Batches, Normalisation
from convtrain.data.images import Images
from convtrain.errors import ConfigError, CorruptDataError
from convtrain.forecast import forecast
from convtrain.run.directory import Run
from convtrain.training.class_weights import balanced_weights
from convtrain.training.losses import ClassWeighted
from convtrain.use.evaluate import evaluate
from tests.conftest import QUICK, REPOSITORY, compose, slow_but
from tests.training.test_resume import SMALL, Whole

GENERATOR = torch.Generator().manual_seed(0)
COUNT, WEIGHTS = 9, [0.5, 3.0, 1.0, 2.0]
LOGITS = 3 * torch.randn(COUNT, 4, generator=GENERATOR, dtype=torch.float64)
CLASSES = torch.tensor([0, 1, 2, 3, 1, 1, 0, 2, 3])
MIXED = 0.3 * F.one_hot(CLASSES, 4) + 0.7 * F.one_hot(CLASSES.roll(1), 4)
SIZES = (36, 12, 4)


class Skewed(Dataset[Any]):
    """Noise that is brighter for higher classes, of which each has a third of the one before."""

    def __len__(self) -> int:
        return sum(SIZES)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = (index >= SIZES[0]) + (index >= SIZES[0] + SIZES[1])
        noise = torch.randint(0, 100, (1, 8, 8), generator=torch.Generator().manual_seed(index))
        return (noise + 60 * label).to(torch.uint8), label


SKEWED = (
    "trust=[tests]", "data=custom", "data._target_=tests.training.test_class_weights.Skewed",
    "data.num_classes=3", "data.shape=[1,8,8]", "data.mean=[0.5]", "data.std=[0.25]",
    "data.batch_size=8", "data.eval_batch_size=4", "data.val_fraction=0.25",
    "data.test_fraction=0.25",
)  # fmt: skip


def weighted(name: str, **settings: Any) -> ClassWeighted:
    chosen: Any = TypeAdapter(Loss).validate_python({"name": name, **settings})
    return ClassWeighted(chosen.build(), torch.tensor(WEIGHTS, dtype=torch.float64))


def softmax(logits: list[float]) -> list[float]:
    total = sum(map(math.exp, logits))
    return [math.exp(logit) / total for logit in logits]


def cross_entropy(logits: list[float], parts: list[float], smoothing: float) -> float:
    smoothed = [part * (1 - smoothing) + smoothing / 4 for part in parts]
    terms = zip(WEIGHTS, smoothed, softmax(logits), strict=True)
    return sum(-weight * part * math.log(p) for weight, part, p in terms)


def focal(logits: list[float], parts: list[float]) -> float:
    terms = zip(WEIGHTS, parts, softmax(logits), strict=True)
    return sum(-weight * part * (1 - p) ** 2 * math.log(p) for weight, part, p in terms)


def of_each(logits: list[float], parts: list[float], smoothing: float, gamma: float) -> float:
    """Return a loss of each class by itself, whose weight is that of its presence."""
    total = 0.0
    for weight, part, logit in zip(WEIGHTS, parts, logits, strict=True):
        part = part * (1 - smoothing) + smoothing / 4
        p = 1 / (1 + math.exp(-logit))
        total -= weight * part * (1 - p) ** gamma * math.log(p)
        total -= (1 - part) * p**gamma * math.log(1 - p)
    return total / 4


def hinge(logits: list[float], parts: list[float]) -> float:
    answer = parts.index(1)
    others = (logits[c] - logits[answer] + 0.5 for c in range(4) if c != answer)
    return WEIGHTS[answer] * sum(max(0, other) for other in others) / 4


BY_HAND: dict[str, tuple[dict[str, Any], Callable[[list[float], list[float]], float]]] = {
    "cross_entropy": ({"label_smoothing": 0.0}, lambda x, t: cross_entropy(x, t, 0.0)),
    "cross_entropy, smoothed": ({"label_smoothing": 0.2}, lambda x, t: cross_entropy(x, t, 0.2)),
    "nll": ({}, lambda x, t: cross_entropy(x, t, 0.0)),
    "focal": ({"gamma": 2.0, "form": "softmax", "alpha": None}, focal),
    "focal, sigmoid": (
        {"gamma": 2.0, "form": "sigmoid", "alpha": None},
        lambda x, t: of_each(x, t, 0.0, 2.0),
    ),
    "bce": ({"label_smoothing": 0.0}, lambda x, t: of_each(x, t, 0.0, 0.0)),
    "bce, smoothed": ({"label_smoothing": 0.2}, lambda x, t: of_each(x, t, 0.2, 0.0)),
    "multi_margin": ({"margin": 0.5, "p": 1}, hinge),
}


@pytest.mark.parametrize("mixed", [False, True], ids=["classes", "mixed"])
@pytest.mark.parametrize("name", BY_HAND)
def test_a_weighted_loss_is_the_one_by_hand(name: str, mixed: bool) -> None:
    settings, by_hand = BY_HAND[name]
    targets = MIXED.double() if mixed else CLASSES
    parts = (MIXED if mixed else F.one_hot(CLASSES, 4)).tolist()
    if mixed and name == "multi_margin":
        return  # takes no fractions
    expected = sum(map(by_hand, LOGITS.tolist(), parts)) / COUNT
    found = weighted(name.partition(",")[0], **settings)(LOGITS, targets)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mixture", ["mixup", "cutmix"])
def test_a_mixed_batch_counts_both_classes_with_their_weights(mixture: str) -> None:
    """Each image is of one level, so that the level of a mixture tells how much of each it has."""
    levels = torch.arange(COUNT, dtype=torch.uint8) * 20
    alphas: dict[str, Any] = {mixture: 1.0}
    pixels = levels.view(-1, 1, 1, 1).expand(COUNT, 1, 8, 8).contiguous()
    loader = Batches(
        Images(pixels, CLASSES), batch_size=COUNT, normalise=Normalisation([0.0], [1.0]),
        augmentation=Augmentation(**alphas), classes=4, shuffle=True, seed=2,
    )  # fmt: skip
    (batch,) = loader
    loss, expected = weighted("cross_entropy", label_smoothing=0.1), 0.0
    indices, shown = batch.indices.tolist(), (255 * batch.images).mean((1, 2, 3)).tolist()
    for place, own in enumerate(indices):
        other = indices[place - 1]
        part = (shown[place] - 20 * other) / (20 * own - 20 * other)
        assert 0.01 < part < 0.99
        for index, much in ((own, part), (other, 1 - part)):
            answer = F.one_hot(CLASSES[index], 4).tolist()
            expected += much * cross_entropy(LOGITS[place].tolist(), answer, 0.1) / COUNT
    assert loss(LOGITS, batch.targets.double()).item() == pytest.approx(expected, rel=1e-4)


def test_an_item_of_the_list_that_is_wrong_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        compose("loss.class_weights=[1,2,-1]")
    expected = "loss.class_weights.2=-1: must be greater than or equal to 0 [set in: command line]"
    assert str(caught.value) == expected


def test_torchs_mean_over_class_indices_divides_by_the_weights_instead() -> None:
    ours = weighted("cross_entropy", label_smoothing=0.0)(LOGITS, CLASSES)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    torchs = nn.CrossEntropyLoss(weights)(LOGITS, CLASSES)
    torch.testing.assert_close(ours, torchs * weights[CLASSES].mean())


def test_balanced_weights_are_scikit_learns_and_of_labels_absent_by_present() -> None:
    class_weight = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    labels = torch.tensor([0] * 50 + [1] * 7 + [2] * 3 + [3])
    expected = class_weight("balanced", classes=labels.unique().numpy(), y=labels.numpy())
    assert balanced_weights(labels, "abcd") == expected.tolist()
    several = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.5]])
    assert balanced_weights(several, "ab") == [2 / 3, 3.5 / 1.5]


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (torch.tensor([0, 0, 2]), "no training image has the class b, d;"),
        (torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 0]]), "no training image has the class b;"),
        (torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, 0]]), "all training images have the label c,"),
    ],
)
def test_classes_that_cannot_be_balanced_are_named(labels: Tensor, line: str) -> None:
    with pytest.raises(ConfigError, match=f"^loss.class_weights=balanced: {line}"):
        balanced_weights(labels, "abcd")


PIXELS = torch.randint(0, 256, (70, 1, 4, 4), dtype=torch.uint8, generator=GENERATOR)
LABELS = (torch.arange(70).sqrt() / 2.1).long()


def gradient(*, mixup: float = 0.0, **options: Any) -> Tensor:
    """Return the gradients of an epoch's steps, as Lightning averages parts, ranks and batches."""
    world, accumulate = options.get("world_size", 1), options.get("accumulate", 1)
    ranks: list[list[Batch]] = [
        list(
            Batches(
                Images(PIXELS, LABELS), normalise=Normalisation([0.5], [0.25]), shuffle=True,
                augmentation=Augmentation(mixup=mixup), classes=4, **{**options, "rank": rank},
            )
        )
        for rank in range(world)
    ]  # fmt: skip
    loss = weighted("cross_entropy", label_smoothing=0.1).float()
    steps = []
    for first in range(0, len(ranks[0]), accumulate):
        weight = torch.zeros(4, 16, requires_grad=True)
        for batch in (b for mine in ranks for b in mine[first : first + accumulate]):
            value = loss(batch.images.flatten(1) @ weight.T, batch.targets) * batch.loss_weight
            (value / (world * accumulate)).backward()
        assert weight.grad is not None
        steps.append(weight.grad)
    return torch.stack(steps)


@pytest.mark.parametrize(
    "divided",
    [{"accumulate": 2, "batch_size": 16}, {"world_size": 2}, {"world_size": 3, "mixup": 0.5}],
    ids=["accumulated", "two devices", "three devices, mixed"],
)
def test_accumulated_batches_and_devices_have_the_gradient_of_the_whole_batch(
    divided: dict[str, Any],
) -> None:
    """70 images are two batches of 32 and one of 6."""
    whole = gradient(mixup=divided.get("mixup", 0.0), batch_size=32)
    torch.testing.assert_close(gradient(**{"batch_size": 32, **divided}), whole)


def test_a_run_keeps_its_balanced_weights_and_is_evaluated_with_them(
    tmp_path: Path, train: Any
) -> None:
    results = [
        train(*SKEWED, "loss.class_weights=balanced", f"model={style}", name=style)
        for style in ("functional", "nn")
    ]
    assert results[0]["test/loss"] == results[1]["test/loss"]
    run = Run(tmp_path / "nn")
    sizes = [round(size * 0.75**2) for size in SIZES]
    expected = [sum(sizes) / (3 * size) for size in sizes]
    assert run.read_provenance()["class_weights"] == pytest.approx(expected)
    found = evaluate(run.path)
    assert found["metrics"]["test/loss"] == results[1]["test/loss"]
    provenance = json.loads(run.provenance.read_text())
    del provenance["class_weights"]
    run.provenance.write_text(json.dumps(provenance))
    with pytest.raises(CorruptDataError, match="lacks the class_weights of the training"):
        evaluate(run.path)


@pytest.mark.parametrize("precision", slow_but(["64-true", "bf16-mixed", "16-mixed"], "64-true"))
def test_weights_are_exact_in_every_precision(precision: str, train: Any, tmp_path: Path) -> None:
    overrides = (*SKEWED, f"trainer.precision={precision}", "loss.class_weights=[0.1,1,10]")
    assert math.isfinite(train(*overrides)["test/loss"])
    needs = forecast(compose(*QUICK, *overrides))
    assert "activations" in needs.memory


BALANCED = {
    "sampling": ("data.sampling=balanced", "augment=crop_flip"),
    "weights": ("loss.class_weights=balanced", "data.drop_last=true", "recorder=norms"),
}
"""Of which a run is killed and resumed."""


@pytest.mark.parametrize("style", slow_but(["functional", "nn"], "functional"))
@pytest.mark.parametrize("balanced", slow_but(BALANCED, "sampling"))
def test_a_killed_run_resumes_to_the_same_bits(style: str, balanced: str, tmp_path: Path) -> None:
    small = (each for each in SMALL if not each.startswith(("data", "network")))
    more = (f"model={style}", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=2",
            "callbacks.checkpoint.every_n_steps=1")  # fmt: skip
    whole = Whole(tmp_path, (*small, *SKEWED, *more, *BALANCED[balanced]))
    assert whole.check_killed("batch", 5)


@pytest.mark.slow
@pytest.mark.parametrize("balanced", [*BALANCED.values()], ids=BALANCED)
def test_two_devices_train_as_one(balanced: tuple[str, ...], tmp_path: Path) -> None:
    overrides = [*QUICK, *SKEWED, "network.layers=[Flatten,{Linear:{out_features:3}}]",
                 "trainer.threads=1", "logger=csv", *balanced]  # fmt: skip
    losses = []
    for devices in (1, 2):
        run = tmp_path / str(devices)
        command = [sys.executable, str(REPOSITORY / "train.py"), *overrides, "trainer=ddp_cpu",
                   f"trainer.devices={devices}", f"hydra.run.dir={run}"]  # fmt: skip
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        losses.append(json.loads((run / "result.json").read_text())["test/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
