"""``check --build`` gives the verdict that the training gives before its first step."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from convtrain.assembly import make_model
from convtrain.errors import ConvtrainError
from convtrain.forecast import forecast
from convtrain.pipeline import train
from tests.conftest import QUICK, compose

STEP = (*QUICK, "logger=none", "recorder=off", "data.limit=32", "data.batch_size=16",
        "trainer.limit_train_batches=1", "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1")  # fmt: skip
SOURCE = """
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

class Net(nn.Module):
    def __init__(self, features=64, classes=10):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.linear = nn.Linear(features, classes)

    def forward(self, images):
        self.seen += len(images)
        return self.linear(nn.functional.dropout(images.flatten(1), 0.5, self.training))

class LooksAtValues(Net):
    def forward(self, images):
        return super().forward(images / max(images.abs().max().item(), 1e-9))

class Lazy(nn.Sequential):
    def __init__(self, classes=10):
        super().__init__(nn.Flatten(), nn.LazyLinear(classes))

class Pair(Net):
    def forward(self, images):
        return super().forward(images), images

class PairInTraining(Net):
    def forward(self, images):
        scores = super().forward(images)
        return (scores, images) if self.training else scores

class PairInValidation(Net):
    def forward(self, images):
        scores = super().forward(images)
        return scores if self.training else (scores, images)

class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1).eval()

    def forward(self, images):
        return super().forward(self.norm(images))

class Breaks(Net):
    def forward(self, images):
        raise KeyError("no such layer")

class Doubles(Net):
    def forward(self, images):
        return super().forward(images @ torch.eye(8, dtype=self.linear.weight.dtype))

class Counts(Callback):
    def __init__(self, every):
        if every < 1:
            raise ValueError("every must be at least 1")

class Closes(torch.optim.SGD):
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        super().step()
        return loss
"""
CUSTOM = ("model=custom", "trust=[ownpackage]")
COUNTS = "callbacks.custom=[{{_target_: ownpackage.Counts, {}}}]"
CASES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "fits": ((*CUSTOM, "model._target_=ownpackage.Net"), None),
    "fits in float64": (
        (*CUSTOM, "model._target_=ownpackage.Doubles", "trainer.precision=64"),
        None,
    ),
    "looks at values": ((*CUSTOM, "model._target_=ownpackage.LooksAtValues"), None),
    "sizes by the first input": ((*CUSTOM, "model._target_=ownpackage.Lazy"), None),
    "a frozen layer": ((*CUSTOM, "model._target_=ownpackage.Frozen"), None),
    "torch's own, wrong shape": (
        ("model=custom", "model._target_=torch.nn.Linear", "+model.in_features=8",
         "+model.out_features=10"),
        "model._target_=torch.nn.Linear: the output of an image has shape (1, 8, 10)",
    ),
    "wrong input": (
        (*CUSTOM, "model._target_=ownpackage.Net", "+model.features=63"),
        "model._target_=ownpackage.Net: cannot take images of (1, 8, 8): mat1 and mat2 shapes",
    ),
    "wrong number of classes": (
        (*CUSTOM, "model._target_=ownpackage.Net", "+model.classes=9"),
        "model._target_=ownpackage.Net: the output of an image has shape (9,), but the data has 10",
    ),
    "wrong number of classes, lazily": (
        (*CUSTOM, "model._target_=ownpackage.Lazy", "+model.classes=9"),
        "model._target_=ownpackage.Lazy: the output of an image has shape (9,)",
    ),
    "wrong, by values": (
        (*CUSTOM, "model._target_=ownpackage.LooksAtValues", "+model.classes=9"),
        "model._target_=ownpackage.LooksAtValues: the output of an image has shape (9,)",
    ),
    "a tuple": (
        (*CUSTOM, "model._target_=ownpackage.Pair"),
        "model._target_=ownpackage.Pair: returns a tuple, not a tensor; return the logits alone",
    ),
    "a tuple in training": (
        (*CUSTOM, "model._target_=ownpackage.PairInTraining"),
        "model._target_=ownpackage.PairInTraining: returns a tuple",
    ),
    "a tuple in validation": (
        (*CUSTOM, "model._target_=ownpackage.PairInValidation"),
        "model._target_=ownpackage.PairInValidation: returns a tuple",
    ),
    "an error of its own": (
        (*CUSTOM, "model._target_=ownpackage.Breaks"),
        "model._target_=ownpackage.Breaks: cannot take images of (1, 8, 8): 'no such layer'",
    ),
    "unknown argument": (
        (*CUSTOM, "model._target_=ownpackage.Net", "+model.depth=3"),
        "model.depth=3: Net has no such argument",
    ),
    "a callback that refuses": (
        (*CUSTOM[1:], COUNTS.format("every: 0")),
        "callbacks.custom.0._target_=ownpackage.Counts: every must be at least 1",
    ),
    "a callback without its argument": (
        (*CUSTOM[1:], "callbacks.custom=[{_target_: ownpackage.Counts}]"),
        "callbacks.custom.0.every: is missing (an argument of Counts)",
    ),
    "an optimiser that needs its closure": (
        (*CUSTOM[1:], "optimizer=custom", "optimizer._target_=ownpackage.Closes"),
        None,
    ),
    "a callback that fits": ((*CUSTOM[1:], COUNTS.format("every: 1")), None),
    "an image too small": (("network=lenet",), "network.layers[3] conv2d_2 (Conv2d): input"),
    "a name of a method": (
        ("network.layers=[{Flatten: {}, name: forward},{Linear: {out_features: 10}}]",),
        "network.layers: forward (Flatten): name=forward is an attribute of Sequential",
    ),
    "no such model": (
        ("model=torchvision", "model.name=resnet81"),
        "model.name=resnet81: torchvision has no such classification model",
    ),
    "no such device": (
        ("trainer=mps",),
        "trainer.accelerator=mps: this machine has no such device; type trainer=cpu",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "ownpackage.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("ownpackage", None)


def verdict(what: Any, *arguments: Any) -> str | None:
    try:
        what(*arguments)
    except ConvtrainError as error:
        return f"{error} (status {error.exit_status})"
    return None


@pytest.mark.parametrize("case", CASES)
def test_the_check_and_the_training_say_the_same(case: str, tmp_path: Path) -> None:
    overrides, expected = CASES[case]
    if "trainer=mps" in overrides and torch.backends.mps.is_available():
        pytest.skip("this machine has such a device")
    config = compose(*STEP, *overrides)
    told, found = verdict(forecast, config), verdict(train, config, tmp_path / "run")
    assert told == found
    assert (told is None) == (expected is None)
    assert (told or "").startswith(expected or "")
    assert told is None or (told.endswith("(status 2)") and len(told.splitlines()) == 1)


@pytest.mark.parametrize("name", ["Net", "Lazy", "Frozen"])
def test_trying_a_model_out_leaves_no_trace(name: str) -> None:
    """Neither random numbers nor buffers nor modes are others than without."""
    torch.manual_seed(3)
    expected = getattr(import_module("ownpackage"), name)()
    if name == "Lazy":
        expected(torch.zeros(2, 1, 8, 8))
    drawn = torch.rand(3)
    torch.manual_seed(3)
    model = make_model(compose(*STEP, *CUSTOM, f"model._target_=ownpackage.{name}"))
    if name == "Lazy":
        assert torch.equal(model.get_parameter("1.weight"), expected[1].weight)
    else:
        assert torch.equal(torch.rand(3), drawn)
    for key, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor)
    modes = [module.training for module in model.modules()]
    assert modes == [module.training for module in expected.modules()]
