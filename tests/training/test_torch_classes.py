"""``optimizer=custom`` and ``scheduler=custom``: all classes of torch, and classes of one's own."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler

from convtrain import pipeline
from convtrain.config.schema import Optimizer, Scheduler
from convtrain.config.targets import check_targets
from convtrain.errors import ConfigError, ConvtrainError
from convtrain.training.checkpoint_file import load_checkpoint, save_checkpoint
from tests.conftest import Train, compose
from tests.training.test_resume import SMALL, Whole

TORCHS = sorted(
    name for name in dir(optim) if isinstance(getattr(optim, name), type)
)  # fmt: skip
SCHEDULES = sorted(
    name
    for name, found in vars(lr_scheduler).items()
    if isinstance(found, type) and issubclass(found, lr_scheduler.LRScheduler)
)
REFUSED = {
    "LBFGS": "several times in a step", "Muon": "optimizer=muon", "Optimizer": "a base class",
    "SparseAdam": "sparse gradients alone", "ChainedScheduler": "as objects",
    "SequentialLR": "scheduler.warmup_epochs=1", "LambdaLR": "takes functions",
    "MultiplicativeLR": "takes functions", "LRScheduler": "a base class",
    "_LRScheduler": "",
}  # fmt: skip
ARGUMENTS: dict[str, dict[str, Any]] = {
    "CosineAnnealingLR": {"T_max": 4}, "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2},
    "ExponentialLR": {"gamma": 0.5}, "MultiStepLR": {"milestones": [1, 3]},
    "OneCycleLR": {"max_lr": 0.5}, "ReduceLROnPlateau": {"patience": 0}, "StepLR": {"step_size": 2},
}  # fmt: skip


def custom(group: Any, place: str, target: str, **arguments: object) -> Any:
    declared = {"name": "custom", "_target_": target, **arguments}
    made: Any = TypeAdapter(group).validate_python(declared)
    made.place(place, [])
    return made


def wrong(section: Any) -> list[str]:
    return [f"{mistake.key}: {mistake.text}" for mistake in section.mistakes()]


def steps(optimizer: optim.Optimizer, parameter: Tensor, count: int) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    for _ in range(count):
        optimizer.step(closure)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TORCHS)
def test_every_optimizer_of_torch_trains_or_is_refused(name: str, tmp_path: Path) -> None:
    section = custom(Optimizer, "optimizer", f"torch.optim.{name}", lr=0.1)
    if name in REFUSED:
        (line,) = wrong(section)
        assert line.startswith("optimizer._target_: ")
        assert REFUSED[name] in line
        return
    assert not wrong(section)
    parameter = nn.Parameter(torch.ones(2, 3))
    expected = nn.Parameter(torch.ones(2, 3))
    optimizer, torchs = section.build(params=[parameter]), getattr(optim, name)([expected], lr=0.1)
    steps(optimizer, parameter, 1)
    save_checkpoint({"optimizer": optimizer.state_dict()}, tmp_path / "a.ckpt")
    again = section.build(params=[parameter])
    again.load_state_dict(load_checkpoint(tmp_path / "a.ckpt")["optimizer"])
    steps(again, parameter, 1)
    steps(torchs, expected, 2)
    assert torch.equal(parameter, expected)
    assert not torch.equal(expected, torch.ones(2, 3))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_every_schedule_of_torch_is_stepped_or_refused(
    name: str, interval: str, tmp_path: Path
) -> None:
    arguments = ARGUMENTS.get(name, {})
    target = f"torch.optim.lr_scheduler.{name}"
    section = custom(Scheduler, "scheduler", target, interval=interval, **arguments)
    if name in REFUSED or (name == "ReduceLROnPlateau" and interval == "step"):
        expected = REFUSED.get(name, "waits for a validation; set scheduler.interval=epoch")
        (line,) = wrong(section) if name != "_LRScheduler" else ("",)
        assert expected in line
        return
    assert not wrong(section)

    def rates(make: Callable[[optim.Optimizer], Any]) -> list[float]:
        optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=0.4, momentum=0.9)
        schedule, seen = make(optimizer), []
        metric = (1.0,) if name == "ReduceLROnPlateau" else ()
        for step in range(6 if interval == "step" else 3):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step(*metric)
            if step == 1 and make is ours:  # a run that is resumed
                save_checkpoint({"schedule": schedule.state_dict()}, tmp_path / "a.ckpt")
                state = copy.deepcopy(optimizer.state_dict())
                schedule = make(optimizer)
                optimizer.load_state_dict(state)
                schedule.load_state_dict(load_checkpoint(tmp_path / "a.ckpt")["schedule"])
        return seen

    def ours(optimizer: optim.Optimizer) -> Any:
        made = section.build(optimizer=optimizer, total_steps=6, epoch_steps=2)
        assert made["interval"] == interval
        return made["scheduler"]

    total = {"total_steps": 6 if interval == "step" else 3} if name == "OneCycleLR" else {}
    assert rates(ours) == rates(lambda o: getattr(lr_scheduler, name)(o, **arguments, **total))


def test_a_plateau_of_torch_follows_its_metric() -> None:
    target = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    section = custom(Scheduler, "scheduler", target, interval="epoch", monitor="val/acc")
    sgd = optim.SGD([nn.Parameter(torch.ones(1))])
    made: Any = section.build(optimizer=sgd, total_steps=6, epoch_steps=2)
    assert (made["scheduler"].mode, made["monitor"]) == ("max", "val/acc")
    crossed = custom(Scheduler, "scheduler", target, interval="epoch", mode="max")
    assert "does not fit scheduler.monitor=val/loss" in wrong(crossed)[0]
    own = {"interval": "epoch", "monitor": "val/sharpness"}
    assert "val/sharpness is not known" in wrong(custom(Scheduler, "scheduler", target, **own))[0]
    assert not wrong(custom(Scheduler, "scheduler", target, mode="max", **own))


OPTIMIZER, SCHEDULER = (
    "optimizer=custom optimizer._target_=",
    "scheduler=custom scheduler._target_=",
)
LINES = {
    f"{OPTIMIZER}torch.optim.NAdam optimizer.momentum_decy=1": "did you mean momentum_decay?",
    f"{OPTIMIZER}torch.optim.lr_scheduler.StepLR": "derived from torch Optimizer",
    f"{OPTIMIZER}torch.optim.Adam optimizer.lr=fast": "optimizer.lr=fast: must be a number",
    f"{OPTIMIZER}torch.hub.load": "not allowed",
    f"{OPTIMIZER}strangers.Sign": "strangers.Sign: not a trusted package; add 'trust=[strangers]'",
    f"{SCHEDULER}torch.optim.lr_scheduler.StepLR": "scheduler.step_size: ",
    f"{SCHEDULER}torch.optim.SGD": "not allowed",
    f"{SCHEDULER}torch.optim.lr_scheduler.ExponentialLR scheduler.gamma=1 scheduler.interval=day":
        "scheduler.interval=day: ",
    f"{SCHEDULER}torch.optim.lr_scheduler.ExponentialLR scheduler.gamma=1 scheduler.optimizer=1":
        "is given by convtrain",
    f"{SCHEDULER}torch.optim.lr_scheduler.ReduceLROnPlateau trainer.limit_val_batches=0":
        "scheduler.monitor: does not exist",
}  # fmt: skip
"""Mistakes, and what their one line says."""


def complaint(overrides: str) -> str:
    with pytest.raises(ConfigError) as found:
        check_targets(compose(*overrides.split()))
    return str(found.value)


@pytest.mark.parametrize("mistake", LINES)
def test_a_mistake_is_one_line_before_any_data_is_read(mistake: str) -> None:
    assert LINES[mistake] in complaint(mistake)


QUIET = ("recorder=off", "logger=none", "network=lenet", "data=synthetic", "data.shape=[3,16,16]")

FOREIGN = '''
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

class Sign(Optimizer):
    """Steps along the sign of an averaged gradient (Lion's idea)."""

    def __init__(self, params, lr: float = 0.01, beta: float = 0.9, calls: int = 1):
        super().__init__(params, {"lr": lr, "beta": beta})
        self.calls = calls

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            for _ in range(self.calls):
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["beta"])
                p.add_(average.sign(), alpha=-group["lr"])
        return loss

class Sawtooth(LRScheduler):
    """Halves the rate at each call, and forgets it at every ``period``-th one."""

    def __init__(self, optimizer, total_steps: int, period: int = 2):
        self.total_steps, self.period, self.calls = total_steps, period, 0
        super().__init__(optimizer)

    def get_lr(self):
        self.calls += 1
        return [rate / 2 ** (self.last_epoch % self.period) for rate in self.base_lrs]

class Openless(Optimizer):
    def __init__(self, params, lr: float = 0.01):
        super().__init__(params, {"lr": lr})

    def step(self):
        ...
'''


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Return overrides that train with an optimiser and a schedule of one's own."""
    (tmp_path / "strangers.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("strangers", None)
    return (
        "trust=[strangers]", "optimizer=custom", "optimizer._target_=strangers.Sign",
        "optimizer.lr=0.001", "scheduler=custom", "scheduler._target_=strangers.Sawtooth",
    )  # fmt: skip


def test_a_closure_is_called_once(train: Train, strangers: tuple[str, ...]) -> None:
    with pytest.raises(ConvtrainError, match=r"step 1, epoch 0, batch 0: .* more than once"):
        train(*strangers, "optimizer.calls=2", "data.limit=64", *QUIET)
    without = [*strangers, "optimizer._target_=strangers.Openless"]
    assert "takes no closure" in complaint(" ".join(without))


def test_a_onecycle_of_torch_cannot_be_made_longer(train: Train, tmp_path: Path) -> None:
    train("scheduler=custom", "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR",
          "scheduler.max_lr=0.1", "scheduler.interval=step", "data.limit=64", *QUIET)  # fmt: skip
    resumed = compose(f"resume={tmp_path / 'run'}", "trainer.max_epochs=2")
    with pytest.raises(ConfigError, match="total_steps=1: the training has 2 steps"):
        pipeline.train(resumed, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("style", ["functional", "nn"])
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_killed_run_with_strangers_ends_as_one_never_killed(
    style: str, interval: str, strangers: tuple[str, ...], tmp_path: Path
) -> None:
    often = ("trainer.val_check_interval=0.5", "trainer.accumulate_grad_batches=2")
    typed = (*SMALL, *strangers, f"scheduler.interval={interval}", f"model={style}", *often)
    whole = Whole(tmp_path / "runs", typed)
    for place, number in (("batch", 8), ("validation", 4), ("epoch's end", 0)):
        assert whole.check_killed(place, number), place
    whole.check_stopped("validation", 3)


@pytest.mark.slow
def test_a_killed_run_with_torchs_plateau_ends_as_one_never_killed(tmp_path: Path) -> None:
    target = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    typed = ("scheduler=custom", f"scheduler._target_={target}", "scheduler.patience=0",
             "scheduler.threshold=10", "scheduler.threshold_mode=abs", "optimizer=custom",
             "optimizer._target_=torch.optim.Rprop", "optimizer.lr=0.001")  # fmt: skip
    whole = Whole(tmp_path / "runs", (*SMALL, *typed))
    for place, number in (("batch", 8), ("validation", 4), ("epoch's end", 0)):
        assert whole.check_killed(place, number), place
