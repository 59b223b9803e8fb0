"""Several optimisers as one, against the same optimisers stepped by hand."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from convtrain.training.optimizers.combined import CombinedOptimizer

STEPS = 6
INPUTS = torch.randn(STEPS, 8, 5, generator=torch.Generator().manual_seed(0))


def halved(step: int) -> float:
    return 0.5**step


def model_and_optimizers() -> tuple[nn.Sequential, list[Optimizer]]:
    torch.manual_seed(1)
    first, second = nn.Linear(5, 4), nn.Linear(4, 3)
    model = nn.Sequential(first, nn.Tanh(), second)
    heads: list[dict[str, Any]] = [
        {"params": [second.weight]},
        {"params": [second.bias], "weight_decay": 0.0},
    ]
    return model, [SGD(first.parameters(), 0.1, momentum=0.9), AdamW(heads, 0.01)]


def train(model: nn.Module, optimizers: Sequence[Optimizer], steps: range, begin: int = 0) -> None:
    """A plain loop, with a schedule for each optimiser."""
    schedules = [LambdaLR(optimizer, halved) for optimizer in optimizers]
    for step in steps:
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(INPUTS[step]).square().sum().backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_it_steps_as_its_optimisers_do_by_hand() -> None:
    model, optimizers = model_and_optimizers()
    train(model, optimizers, range(STEPS))
    ours, combined = model_and_optimizers()
    train(ours, [CombinedOptimizer(combined)], range(STEPS))
    assert all(map(torch.equal, weights(ours), weights(model)))


def test_a_saved_state_goes_on_to_the_same_bits() -> None:
    model, optimizers = model_and_optimizers()
    whole = CombinedOptimizer(optimizers)
    schedule = LambdaLR(whole, halved)
    for step in range(STEPS):
        if step == 3:
            saved = copy.deepcopy((model.state_dict(), whole.state_dict(), schedule.state_dict()))
        whole.zero_grad()
        model(INPUTS[step]).square().sum().backward()
        whole.step()
        schedule.step()

    again, others = model_and_optimizers()
    resumed = CombinedOptimizer(others)
    later = LambdaLR(resumed, halved)
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    later.load_state_dict(saved[2])
    assert [group["lr"] for group in resumed.param_groups] == [0.1 / 8, 0.01 / 8, 0.01 / 8]
    for step in range(3, STEPS):
        resumed.zero_grad()
        again(INPUTS[step]).square().sum().backward()
        resumed.step()
        later.step()
    assert all(map(torch.equal, weights(again), weights(model)))

    state = saved[1]
    assert [group["params"] for group in state["param_groups"]] == [[0, 1], [2], [3]]
    assert {index: set(kept) for index, kept in state["state"].items()} == {
        0: {"momentum_buffer"}, 1: {"momentum_buffer"},
        2: {"step", "exp_avg", "exp_avg_sq"}, 3: {"step", "exp_avg", "exp_avg_sq"},
    }  # fmt: skip
    with pytest.raises(ValueError, match="other parameter groups"):
        resumed.load_state_dict({**state, "param_groups": state["param_groups"][:2]})


def test_it_looks_like_one_optimiser() -> None:
    model, optimizers = model_and_optimizers()
    combined, calls = CombinedOptimizer(optimizers), list[str]()
    combined.register_step_pre_hook(lambda *_: calls.append("before"))
    combined.register_step_post_hook(lambda *_: calls.append("after"))

    def closure() -> Any:
        calls.append("closure")
        combined.zero_grad()
        loss = model(INPUTS[0]).square().sum()
        loss.backward()
        return loss

    loss: Any = combined.step(closure)
    assert calls == ["before", "closure", "after"]
    assert loss.requires_grad
    assert combined.defaults == optimizers[0].defaults
    assert list(combined.state) == list(model.parameters())
    assert len(combined.state) == 4
    bias = model.get_parameter("2.bias")
    combined.state[bias] = {**combined.state[bias], "step": torch.tensor(7.0)}
    assert optimizers[1].state[bias]["step"] == 7
    extra = nn.Parameter(torch.ones(2))
    combined.add_param_group({"params": [extra]})
    assert [len(group["params"]) for group in combined.param_groups] == [2, 1, 1, 1]
    assert combined.param_groups[1] is optimizers[0].param_groups[1]
    with pytest.raises(ValueError, match="more than one parameter group"):
        combined.add_param_group({"params": [bias]})
    extra.grad = torch.ones(2)
    combined.step()
    assert not torch.equal(extra, torch.ones(2))


def test_a_gradient_scaler_unscales_it_once_and_skips_a_step_for_all() -> None:
    model, optimizers = model_and_optimizers()
    scaled, others = model_and_optimizers()
    combined = CombinedOptimizer(others)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(3):
        for optimizer in (*optimizers, combined):
            optimizer.zero_grad()
        model(INPUTS[step]).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        scaler.scale(scaled(INPUTS[step]).square().sum()).backward()
        scaler.step(combined)
        scaler.update()
    assert all(map(torch.equal, weights(scaled), weights(model)))  # the scale is a power of two
    scaler.scale(scaled(INPUTS[0] * torch.inf).sum()).backward()
    scaler.step(combined)
    assert all(map(torch.equal, weights(scaled), weights(model)))
