"""Where a NaN comes from: every place of a branching network, in both styles, forward and back."""

import os
import subprocess
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convtrain
from convtrain.data.batches import Batch
from convtrain.errors import TrainingError
from convtrain.gradients.diagnosis import alarm_handler
from convtrain.gradients.diagnosis.replay import replay_saved
from convtrain.layers.blocks import Concat, Gate, Residual, Sum
from convtrain.models.functional import functionalize
from tests.conftest import REPOSITORY, Train


class Spot(nn.Module):
    """Hands its input on, but in one of its calls its output, or its gradient, is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.how, self.call, self.calls = "", -1, 0

    def forward(self, input: Tensor) -> Tensor:
        self.calls += 1
        if self.calls - 1 != self.call:
            return input * 1.0
        if self.how == "forward":
            return input * torch.nan
        if self.how == "backward":
            return torch.sqrt((input - input) ** 2) + input  # the gradient of sqrt at 0
        return Huge.apply(input)


class Huge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        return input * 1.0

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, 3e38)


def chain(*names: str) -> nn.Sequential:
    made = {"conv": lambda: nn.Conv2d(4, 4, 3, padding=1), "norm": lambda: nn.BatchNorm2d(4)}
    made |= {"relu": lambda: nn.ReLU(inplace=True), "spot": Spot}
    return nn.Sequential(OrderedDict((name, made[name.rstrip("12")]()) for name in names))


def branching() -> nn.Sequential:
    shared = Spot()
    inner = Residual(chain("conv", "spot"), chain("spot"))
    layers = {
        "spot1": Spot(),
        "stem": nn.Conv2d(1, 4, 3, padding=1),
        "spot2": Spot(),
        "plain": Residual(chain("conv", "norm", "spot1", "relu", "spot2")),
        "projected": Residual(chain("conv", "spot"), chain("spot1", "conv", "spot2")),
        "concat": Concat(nn.Sequential(OrderedDict(
            a=chain("spot1", "conv", "spot2"), b=chain("spot"), c=inner,
        ))),
        "narrow": nn.Conv2d(12, 4, 1),
        "sum": Sum(nn.Sequential(OrderedDict(a=chain("spot"), b=chain("conv", "spot")))),
        "gate": Gate(chain("conv", "spot")),
        "again1": shared,
        "relu": nn.ReLU(inplace=True),
        "again2": shared,
        "flatten": nn.Flatten(),
        "head": nn.Linear(4 * 6 * 6, 3),
        "spot3": Spot(),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


PLACES = [name for name, layer in branching().named_modules() if isinstance(layer, Spot)]
HOW = ("forward", "backward")  # nothing goes back through the first spot, before all weights
STEPS = [(1, 0), (3, 1)]  # micro-batches, and the one that breaks


class Head(nn.Module):
    """What a replay needs of a task."""

    def __init__(self, model: nn.Module, loss: Any = nn.functional.cross_entropy) -> None:
        super().__init__()
        self.model, self.loss, self.device = model, loss, torch.device("cpu")
        self.parts = {"": model}

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def network(style: str, how: str = "", **breaking: int) -> nn.Module:
    """Return the network, of which some spots break, each in one of its calls."""
    torch.manual_seed(0)
    model = branching()
    for name, module in model.named_modules():
        if name.replace(".", "_") in breaking:
            module.how, module.call = how, breaking[name.replace(".", "_")]
    return functionalize(model, carry=True) if style == "functional" else model


def again(task: Any, count: int = 1, images: Tensor | None = None) -> Any:
    made = torch.randn(count, 5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    micro_batches = [
        {**Batch(each, torch.arange(5) % 3, torch.arange(5), 1.0)._asdict(), "seed": number}
        for number, each in enumerate(made if images is None else images)
    ]
    state = {"micro_batches": micro_batches, "parts": count, "buffers": {}}
    return replay_saved(task, state, nullcontext)


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize(
    ("place", "how"),
    [("spot1", "forward"), *((place, how) for place in PLACES[1:] for how in HOW)],
)
def test_the_layer_is_named_whatever_ran_before_or_after_it(
    place: str, how: str, style: str
) -> None:
    for count, breaks in STEPS:
        # One layer is called twice in a pass, under its first name.
        calls = {"#0": 2 * breaks, "#1": 2 * breaks + 1} if place == "again1" else {"": breaks}
        for number, call in calls.items():
            model = network(style, how, **{place.replace(".", "_"): call})
            found = again(Head(model), count)
            assert (found.where, found.micro_batch) == (f"{how} pass of {place}{number}", breaks)
            assert not all(gradient.isfinite().all() for gradient in found.gradients.values())


def nothing_breaks(style: str) -> Any:
    return again(Head(network(style)), 2)


def input_is_broken(style: str) -> Any:
    return again(Head(network(style)), images=torch.full((1, 5, 1, 6, 6), torch.nan))


def loss_is_broken(style: str) -> Any:
    return again(Head(network(style), lambda scores, targets: scores.sum() * torch.nan))


def loss_breaks_backward(style: str) -> Any:
    spike = lambda scores, targets: torch.sqrt((scores - scores) ** 2).sum()  # noqa: E731
    return again(Head(network(style), spike))


def weights_are_broken(style: str) -> Any:
    model = network(style)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.inf)
    return again(Head(model))


ELSEWHERE = {
    nothing_breaks: "",
    input_is_broken: "input",
    loss_is_broken: "loss",
    loss_breaks_backward: "backward pass of loss",
    weights_are_broken: "weights themselves, of which stem.weight is not finite",
}


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize(
    ("case", "where"), ELSEWHERE.items(), ids=lambda c: getattr(c, "__name__", "")
)
def test_what_is_the_fault_of_no_layer_is_told_too(case: Any, where: str, style: str) -> None:
    assert case(style).where == where


@pytest.mark.parametrize("style", ["nn", "functional"])
def test_a_sum_of_finite_gradients_that_is_not_finite_is_named(style: str) -> None:
    """Each branch hands back what float32 holds."""
    layers = OrderedDict(
        stem=nn.Conv2d(1, 4, 3, padding=1),
        sum=Sum(nn.Sequential(OrderedDict(a=chain("spot"), b=chain("spot")))),
        flatten=nn.Flatten(),
        head=nn.Linear(4 * 6 * 6, 3),
    )
    model = nn.Sequential(layers)
    for module in model.modules():
        if isinstance(module, Spot):
            module.how, module.call = "huge", 0
    chosen = functionalize(model, carry=True) if style == "functional" else model
    assert again(Head(chosen)).where == "sum of the gradients that come back to stem"


class OwnCode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Flatten(), nn.Linear(36, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(torch.log(self.first(images).square() * -1))


def test_code_between_two_layers_is_not_blamed_on_either() -> None:
    assert again(Head(OwnCode())).where == "forward pass of the model's own code"


def test_a_replay_leaves_nothing_behind() -> None:
    model = network("nn", "forward", projected_body_spot=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    assert again(Head(model), 2).where == "forward pass of projected.body.spot"
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# --- the file -------------------------------------------------------------------------------------

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    '''Breaks in its seventh forward pass, as a buffer tells it that another takes the place of.'''

    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 10)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, images):
        hidden = self.drop(self.first(images.flatten(1)))
        if self.training:
            self.passes = self.passes + 1
            spike = torch.sqrt((hidden - hidden) ** 2)
            hidden = hidden + (spike if self.passes == 7 else 0)
        return self.last(hidden)
"""
FRESH = """
import convtrain, sys, torch
found = convtrain.reproduce(sys.argv[1])
torch.save(found.gradients, sys.argv[2])
print(found.where, found.micro_batch, found.is_same, sep="|")
"""


def broken_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, dict[str, Tensor]]:
    """Train until a NaN; return the file, and the gradients as they were in the training."""
    (tmp_path / "ownbreaking.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    seen: dict[str, Tensor] = {}
    plain = alarm_handler.AlarmHandler.look_at_broken_step

    def looking(self: Any, trainer: Any, module: Any, *rest: Any) -> None:
        seen.update({n: p.grad.clone() for n, p in module.model.named_parameters()})
        plain(self, trainer, module, *rest)

    monkeypatch.setattr(alarm_handler.AlarmHandler, "look_at_broken_step", looking)
    with pytest.raises(TrainingError) as stopped:
        train(
            "model=custom", "model._target_=ownbreaking.Net", "trust=[ownbreaking]", "alarm=stop",
            "trainer.accumulate_grad_batches=3", "logger=none", "augment.cutout=2",
        )  # fmt: skip
    path = tmp_path / "run" / "gradients" / "nonfinite-000000000003.pt"
    message = str(stopped.value)
    assert "step 3: NaN or infinity in the gradient of first.weight and " in message
    assert (
        "first non-finite in the backward pass of the model's own code, in micro-batch 1 of 3"
        in message
    )
    assert f"{path} reproduces it" in message
    saved = torch.load(path, weights_only=True)
    assert [each["batch_idx"] for each in saved["micro_batches"]] == [6, 7, 8]
    shown = ", ".join(map(str, saved["micro_batches"][0]["indices"].tolist()[:8]))
    assert f"images {shown}" in message
    return path, seen


def test_the_file_reproduces_the_step_to_the_bit(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, three micro-batches a step, and a buffer that forward passes change."""
    path, seen = broken_run(train, tmp_path, monkeypatch)
    found = convtrain.reproduce(path)
    assert (found.where, found.micro_batch) == ("backward pass of the model's own code", 0)
    assert found.is_same
    check(found.gradients, seen)


def check(found: dict[str, Tensor], seen: dict[str, Tensor]) -> None:
    assert found.keys() == seen.keys()
    for name, gradient in seen.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_so_it_does_in_a_fresh_process(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    path, seen = broken_run(train, tmp_path, monkeypatch)
    done = subprocess.run(
        [python, "-c", FRESH, path, tmp_path / "found.pt"],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "backward pass of the model's own code|0|True"
    check(torch.load(tmp_path / "found.pt", weights_only=True), seen)


def test_a_step_that_another_run_of_it_does_not_repeat_is_not_said_to_be_reproduced(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that depends on an attribute of the model, which nobody can know of."""
    forgetful = OWN.replace('self.register_buffer("passes", torch.zeros(()))', "self.passes = 0")
    (tmp_path / "ownforgetful.py").write_text(forgetful)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TrainingError) as stopped:
        train(
            "model=custom", "model._target_=ownforgetful.Net", "trust=[ownforgetful]",
            "alarm=stop", "logger=none",
        )  # fmt: skip
    message = str(stopped.value)
    assert "finite when it was replayed" in message
    assert "nonfinite-000000000007.pt holds the step, but a replay differs" in message
