"""Losses and schedules against torch's own."""

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    StepLR,
)
from torchvision.ops import sigmoid_focal_loss

from convtrain.config.schema import Loss, Scheduler
from convtrain.training.running_metrics import RunningMetrics, means

SCORES, TARGETS = torch.randn(16, 5), torch.randint(0, 5, (16,))
ALPHA = [1.0, 2.0, 0.5, 1.0, 3.0]
EXPECTED: dict[str, tuple[dict[str, Any], Any]] = {
    "cross_entropy": ({"label_smoothing": 0.1}, nn.CrossEntropyLoss(label_smoothing=0.1)),
    "nll": ({}, lambda s, t: nn.NLLLoss()(s.log_softmax(1), t)),
    "mse": ({}, lambda s, t: ((s - torch.eye(5)[t]) ** 2).mean()),
    "multi_margin": ({"margin": 0.5, "p": 2}, nn.MultiMarginLoss(p=2, margin=0.5)),
    "sum": ({}, lambda s, t: s.sum()),
    "bce": (
        {"label_smoothing": 0.1},
        lambda s, t: nn.BCEWithLogitsLoss()(s, torch.eye(5)[t] * 0.9 + 0.02),
    ),
    "focal": ({"gamma": 2.0, "form": "softmax", "alpha": ALPHA}, lambda s, t: focal_by_hand(s, t)),
}


def focal_by_hand(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    p = scores.exp()[range(16), targets] / scores.exp().sum(1)
    return (-torch.tensor(ALPHA)[targets] * (1 - p) ** 2 * p.log()).mean()


def loss(name: str, **settings: Any) -> Any:
    return TypeAdapter(Loss).validate_python({"name": name, **settings}).build()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_loss_is_torchs(name: str) -> None:
    settings, expected = EXPECTED[name]
    torch.testing.assert_close(loss(name, **settings)(SCORES, TARGETS), expected(SCORES, TARGETS))


def test_nll_takes_log_probabilities_as_they_are() -> None:
    nll = loss("nll")
    torch.testing.assert_close(nll(SCORES.log_softmax(1), TARGETS), nll(SCORES, TARGETS))


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_focal_is_torchvisions_and_without_gamma_bce(alpha: float | None) -> None:
    focal = loss("focal", gamma=2.0, form="sigmoid", alpha=alpha)
    labels = (torch.rand(16, 5) < 0.5).float()
    for targets, hot in ((labels, labels), (TARGETS, torch.eye(5)[TARGETS])):
        expected = sigmoid_focal_loss(SCORES, hot, alpha=alpha or -1.0, reduction="mean")
        torch.testing.assert_close(focal(SCORES, targets), expected)
    plain = loss("focal", gamma=0.0, form="sigmoid", alpha=None)
    bce = loss("bce", label_smoothing=0.0)
    torch.testing.assert_close(plain(SCORES, labels), bce(SCORES, labels))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bce", {"label_smoothing": 0.0}),
        ("focal", {"gamma": 1.5, "form": "softmax", "alpha": ALPHA}),
        ("focal", {"gamma": 1.5, "form": "sigmoid", "alpha": 0.25}),
    ],
    ids=["bce", "softmax", "sigmoid"],
)
def test_mixed_images_count_the_fraction_of_each_class(name: str, settings: dict[str, Any]) -> None:
    made, other = loss(name, **settings), TARGETS.roll(1)
    mixed = 0.3 * torch.eye(5)[TARGETS] + 0.7 * torch.eye(5)[other]
    expected = 0.3 * made(SCORES, TARGETS) + 0.7 * made(SCORES, other)
    torch.testing.assert_close(made(SCORES, mixed), expected)


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_gradient_of_focal_is_finite_for_certain_answers(form: str, gamma: float) -> None:
    scores = (200 * torch.eye(5)[TARGETS] - 100).requires_grad_()
    loss("focal", gamma=gamma, form=form, alpha=None)(scores, TARGETS).backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def schedule(name: str, optimizer: SGD, steps: int, **settings: Any) -> Any:
    chosen = TypeAdapter(Scheduler).validate_python({"name": name, **settings})
    return chosen.build(optimizer=optimizer, total_steps=steps, epoch_steps=10)


def rates(name: str, steps: int = 60, **settings: Any) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    made = schedule(name, optimizer, steps, **settings)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made["scheduler"].step()
    return seen


def torch_rates(make: Any, steps: int = 60) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = make(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("pct_start", [0.3, 0.05])
def test_onecycle_is_torchs(anneal: Any, pct_start: float) -> None:
    settings: dict[str, Any] = {
        "pct_start": pct_start,
        "div_factor": 20.0,
        "final_div_factor": 100.0,
    }
    expected = torch_rates(
        lambda o: OneCycleLR(
            o, 0.5, total_steps=60, anneal_strategy=anneal, cycle_momentum=False, **settings
        )
    )
    assert rates("onecycle", anneal_strategy=anneal, **settings) == pytest.approx(expected)


def test_cosine_is_torchs() -> None:
    expected = torch_rates(lambda o: CosineAnnealingLR(o, 60, eta_min=0.05))
    assert rates("cosine", final_fraction=0.1, warmup_epochs=0.0) == pytest.approx(expected)


def test_step_is_torchs() -> None:
    expected = torch_rates(lambda o: StepLR(o, 20, gamma=0.1))
    assert rates("step", step_epochs=2.0, gamma=0.1, warmup_epochs=0.0) == pytest.approx(expected)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_linear_is_torchs(final: float) -> None:
    expected = torch_rates(lambda o: LinearLR(o, 1.0, final, total_iters=60))
    assert rates("linear", final_fraction=final, warmup_epochs=0.0) == pytest.approx(expected)


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_polynomial_is_torchs(power: float) -> None:
    expected = torch_rates(lambda o: PolynomialLR(o, 60, power=power))
    settings: dict[str, Any] = {"power": power, "final_fraction": 0.0, "warmup_epochs": 0.0}
    assert rates("polynomial", **settings) == pytest.approx(expected)
    ends_above = rates("polynomial", **{**settings, "final_fraction": 0.1})
    assert ends_above == pytest.approx([0.05 + 0.9 * rate for rate in expected])


def test_exponential_is_torchs_at_every_epoch() -> None:
    each_epoch = torch_rates(lambda o: ExponentialLR(o, gamma=0.5), steps=6)
    each_step = torch_rates(lambda o: ExponentialLR(o, gamma=0.5**0.1))
    seen = rates("exponential", gamma=0.5, warmup_epochs=0.0)
    assert seen == pytest.approx(each_step)
    assert seen[::10] == pytest.approx(each_epoch)


@pytest.mark.parametrize(("t_0", "t_mult"), [(1.5, 1), (1.0, 2), (0.7, 3), (9.0, 1)])
def test_cosine_restarts_are_torchs(t_0: float, t_mult: int) -> None:
    expected = torch_rates(
        lambda o: CosineAnnealingWarmRestarts(o, round(10 * t_0), t_mult, eta_min=0.05)
    )
    settings: dict[str, Any] = {
        "t_0": t_0,
        "t_mult": t_mult,
        "final_fraction": 0.1,
        "warmup_epochs": 0.0,
    }
    assert rates("cosine_restarts", **settings) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["linear", "polynomial", "cosine"])
def test_a_longer_training_follows_the_longer_schedule(name: str) -> None:
    settings = {"final_fraction": 0.0, "warmup_epochs": 1.0}
    settings |= {"power": 2.0} if name == "polynomial" else {}
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    begun = schedule(name, optimizer, 40, **settings)["scheduler"]
    for _ in range(30):
        optimizer.step()
        begun.step()
    longer = schedule(name, optimizer, 60, **settings)["scheduler"]
    longer.load_state_dict(begun.state_dict())
    longer.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rates(name, 60, **settings)[31])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("none", {}),
        ("step", {"step_epochs": 2.0, "gamma": 0.1}),
        ("cosine", {"final_fraction": 0.0}),
        ("cosine_restarts", {"t_0": 2.0, "t_mult": 2, "final_fraction": 0.0}),
        ("linear", {"final_fraction": 0.0}),
        ("polynomial", {"power": 2.0, "final_fraction": 0.0}),
        ("exponential", {"gamma": 0.5}),
    ],
)
def test_warm_up_rises_linearly_and_then_hands_over(name: str, settings: dict[str, Any]) -> None:
    seen = rates(name, warmup_epochs=1.0, **settings)
    assert seen[:10] == pytest.approx([0.5 * (i + 1) / 11 for i in range(10)])
    assert seen[10] == pytest.approx(0.5)
    assert seen[10:] == pytest.approx(rates(name, steps=50, warmup_epochs=0.0, **settings))


def test_plateau_lowers_the_rate_when_the_metric_stalls() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    settings = {"monitor": "val/loss", "mode": "min", "factor": 0.1, "patience": 1}
    made = schedule("plateau", optimizer, 60, **settings)
    assert made["monitor"] == "val/loss"
    for value in (1.0, 1.0, 1.0):
        made["scheduler"].step(value)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_totals_are_means_over_all_images_whatever_the_batches() -> None:
    totals = RunningMetrics()
    scores, targets = torch.randn(100, 5), torch.randint(0, 5, (100,))
    for start, stop in ((0, 60), (60, 97), (97, 100)):
        part, wanted = scores[start:stop], targets[start:stop]
        totals.add(nn.functional.cross_entropy(part, wanted), part, wanted)
    loss, accuracy = means(totals.sums)
    assert loss == pytest.approx(nn.functional.cross_entropy(scores, targets).item())
    assert accuracy == pytest.approx((scores.argmax(1) == targets).float().mean().item())
    totals.since_mark()
    totals.add(torch.tensor(2.0), scores[:4], targets[:4])
    assert means(totals.since_mark())[0] == 2.0
    totals.reset()
    assert math.isnan(means(totals.sums)[0])
