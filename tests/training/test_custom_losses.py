"""Losses by import path: torch.nn's, each against a formula by hand, and those of a user."""

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convtrain.config.groups.loss import CustomLoss
from convtrain.config.targets import check_targets
from convtrain.config.torch_losses import KNOWN, REFUSED
from convtrain.errors import ConfigError
from convtrain.gradients.reading import load
from convtrain.training.checkpoint_file import load_checkpoint
from convtrain.training.objectives import make_loss
from tests.conftest import Train, compose

SOURCE = """
import torch
from torch import Tensor, nn
from torch.nn import functional as F

class Temperature(nn.Module):
    def __init__(self, start: float = 2.0) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(start))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return F.cross_entropy(logits / self.temperature, targets)

def smooth(logits: Tensor, targets: Tensor, *, amount: float) -> Tensor:
    return F.cross_entropy(logits, targets, label_smoothing=amount)

def of_indices(logits, targets):
    return F.nll_loss(logits.log_softmax(1), targets)

def each(logits, targets):
    return F.cross_entropy(logits, targets, reduction="none")

def blind(logits, targets):
    return logits.argmax(1).float().mean()

def number(logits, targets):
    return 1.0
"""
SCORES, TARGETS = torch.randn(16, 10), torch.randint(0, 10, (16,))
HOT = torch.eye(10)[TARGETS]
BY_HAND: dict[str, Any] = {
    "BCEWithLogitsLoss": lambda s: -torch.where(HOT > 0, s.sigmoid(), 1 - s.sigmoid()).log().mean(),
    "CrossEntropyLoss": lambda s: (s.logsumexp(1) - s[range(16), TARGETS]).mean(),
    "HuberLoss": lambda s: torch.where((d := (s - HOT).abs()) < 1, d**2 / 2, d - 0.5).mean(),
    "L1Loss": lambda s: (s - HOT).abs().mean(),
    "MSELoss": lambda s: (s - HOT).square().mean(),
    "MultiLabelSoftMarginLoss": lambda s: BY_HAND["BCEWithLogitsLoss"](s),
    "MultiMarginLoss": lambda s: (
        (1 + s - s.gather(1, TARGETS.unsqueeze(1))).clamp_min(0) * (1 - HOT)
    ).sum(1).mean() / 10,
    "NLLLoss": lambda s: BY_HAND["CrossEntropyLoss"](s),
    "SmoothL1Loss": lambda s: BY_HAND["HuberLoss"](s),
    "SoftMarginLoss": lambda s: (1 + (-(2 * HOT - 1) * s).exp()).log().mean(),
}  # fmt: skip


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of a user, whose losses are ``ownlosses.NAME``."""
    (tmp_path / "ownlosses.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ownlosses", raising=False)
    return "ownlosses"


def custom(target: str, *more: str) -> list[str]:
    return ["loss=custom", f"loss._target_={target}", "trust=[ownlosses]", *more]


def test_every_loss_of_torch_classifies_or_is_refused_by_name() -> None:
    shipped = {n for n, c in inspect.getmembers(nn, inspect.isclass) if n.endswith("Loss")}
    assert shipped <= KNOWN.keys() | REFUSED.keys()
    assert not KNOWN.keys() & REFUSED.keys()
    assert KNOWN.keys() == BY_HAND.keys()


def test_a_loss_of_torch_takes_class_indices() -> None:
    config = compose()
    for name, by_hand in BY_HAND.items():
        chosen = CustomLoss.model_validate({"name": "custom", "_target_": f"torch.nn.{name}"})
        loss = make_loss(config.model_copy(update={"loss": chosen}))
        torch.testing.assert_close(loss(SCORES, TARGETS), by_hand(SCORES), msg=name)


def test_a_refused_loss_is_a_line_that_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="BCELoss: does not fit here: takes probabilities: type"):
        compose(*custom("torch.nn.BCELoss"))
    with pytest.raises(ConfigError, match=r"Linear: is no loss; torch.nn has BCEWithLogitsLoss"):
        compose(*custom("torch.nn.Linear"))
    with pytest.raises(
        ConfigError, match=r"augment.mixup=0.2: loss=custom has no place for images"
    ):
        compose(*custom("torch.nn.NLLLoss"), "augment.mixup=0.2")


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["torch.nn.HuberLoss", "loss.dleta=2"], "loss.dleta=2: HuberLoss has no such argument; "),
        (["torch.nn.MSELoss", "loss.reduction=sum"], "loss.reduction=sum: a training needs"),
        (["ownlosses.smooth"], "loss.amount: is missing .an argument of smooth"),
        (["ownlosses.smooth", "loss.amount=x"], "loss.amount=x: must be a number"),
        (["ownlosses.smooth", "loss.logits=1"], "loss.logits=1: is given by convtrain"),
    ],
)
def test_arguments_are_bound_before_any_data_is_read(
    typed: list[str], line: str, package: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        check_targets(compose(*custom(*typed)))


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["torch.nn.CrossEntropyLoss", "loss.weight=[1,2]"], "fails on logits .4, 10. and class"),
        (["ownlosses.of_indices", "augment.mixup=1"], "fails on .* fractions .*; or leave out a"),
        (["ownlosses.each"], r"returns shape \(4,\) for .*; return the mean over the images"),
        (["ownlosses.blind"], "does not depend on the logits by a gradient"),
        (["ownlosses.number"], "returns a float, not a tensor"),
    ],
)  # fmt: skip
def test_a_loss_is_tried_before_the_training(typed: list[str], line: str, package: str) -> None:
    with pytest.raises(ConfigError, match=f"^loss._target_={typed[0]}: {line}"):
        make_loss(compose(*custom(*typed)))


def test_class_weights_are_a_list(package: str) -> None:
    weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    loss = make_loss(compose(*custom("torch.nn.CrossEntropyLoss", f"loss.weight={weights}")))
    assert [b.tolist() for b in loss.buffers()] == [weights]  # type: ignore[attr-defined]
    each = SCORES.logsumexp(1) - SCORES[range(16), TARGETS]
    own = torch.tensor(weights)[TARGETS]
    torch.testing.assert_close(loss(SCORES, TARGETS), (own * each).sum() / own.sum())


def test_a_loss_learns_its_own_parameter_with_the_same_bits_in_both_styles(
    package: str, train: Train, tmp_path: Path
) -> None:
    ended: dict[str, Any] = {}
    for style in ("nn", "functional"):
        overrides = custom("ownlosses.Temperature", f"model={style}", "loss.start=1.5")
        train(*overrides, "trainer.gradient_clip_val=1", name=style)
        rows = load(tmp_path / style, "parameters").to_pylist()
        norms = [row["norm"] for row in rows if row["parameter"] == "loss.temperature"]
        assert len(norms) == 21
        assert min(norms) > 0
        state = load_checkpoint(tmp_path / style / "checkpoints" / "last.ckpt")["state_dict"]
        assert state["loss.temperature"] != 1.5
        assert state["loss.calls"] == 21
        ended[style] = {**state, "norms": torch.tensor(norms)}
    assert ended["nn"].keys() == ended["functional"].keys()
    for name, value in ended["nn"].items():
        assert torch.equal(value, ended["functional"][name]), name
