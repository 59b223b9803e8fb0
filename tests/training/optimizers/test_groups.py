"""Parameter groups against groups of torch.optim that are built by hand."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from convtrain import pipeline
from convtrain.assembly import make_model, make_task
from convtrain.errors import ConfigError
from convtrain.training.optimizers.build import make_optimizer
from convtrain.training.optimizers.combined import CombinedOptimizer
from convtrain.training.optimizers.presets import depths
from convtrain.training.parts import parts_of
from tests.conftest import QUICK, compose

RESNET = ("network=resnet8", "data=synthetic", "trainer=cpu")
STYLES = ("functional", "nn")


def resnet(*overrides: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a ResNet8 and its optimiser."""
    config = compose(*RESNET, *overrides)
    torch.manual_seed(0)
    model = make_model(config)
    return model, make_optimizer(config.optimizer, parts_of(model, None))


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the weights after steps with gradients that depend on the name alone."""
    for step in range(3):
        for index, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(100 * step + index)
            if parameter.requires_grad:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@cache
def fresh() -> nn.Module:
    return resnet("model=nn")[0]


def by_hand(
    options: Callable[[str, nn.Parameter], dict[str, Any]],
    make: Callable[..., torch.optim.Optimizer],
) -> list[Tensor]:
    """Return the weights of a ResNet8 each of whose parameters is a group of torch.optim."""
    model = copy.deepcopy(fresh())
    groups = [{"params": [p], **options(name, p)} for name, p in model.named_parameters()]
    return take_steps(model, make(groups, fused=True))


@pytest.mark.parametrize("style", STYLES)
def test_no_decay_is_the_rule_of_torchvisions_recipes(style: str) -> None:
    model, optimizer = resnet(
        f"model={style}", "optimizer=adamw", "optimizer.weight_decay=0.5",
        "optimizer.no_decay=[bias,norm]",
    )  # fmt: skip
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, free = ([names[id(p)] for p in g["params"]] for g in optimizer.param_groups)
    norms = [n for n, m in fresh().named_modules() if isinstance(m, nn.BatchNorm2d)]
    expected = [n for n in names.values() if n.endswith(".bias") or n.rpartition(".")[0] in norms]
    assert sorted(free) == sorted(expected)
    assert sorted([*free, *decayed]) == sorted(names.values())

    def options(name: str, parameter: nn.Parameter) -> dict[str, Any]:
        return {"weight_decay": 0.0} if parameter.ndim <= 1 else {}  # timm's rule: the same here

    weights = by_hand(options, partial(torch.optim.AdamW, lr=0.001, weight_decay=0.5))
    assert all(map(torch.equal, take_steps(model, optimizer), weights))


DEPTHS = {
    "conv2d_1": 4, "batch_norm2d_1": 4, "residual_1": 3, "residual_2": 2, "residual_3": 1,
    "linear_1": 0,
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_layer_decay_multiplies_the_rate_by_depth(style: str) -> None:
    model, optimizer = resnet(
        f"model={style}", "optimizer=sgd", "optimizer.layer_decay=0.5", "optimizer.lr=0.25",
        "optimizer.groups=[{match: linear*, lr_scale: 8}]",
    )  # fmt: skip

    def options(name: str, parameter: nn.Parameter) -> dict[str, Any]:
        first = name.partition(".")[0]
        return {"lr": 2.0 if first == "linear_1" else 0.25 * 0.5 ** DEPTHS[first]}

    expected = by_hand(options, partial(torch.optim.SGD, lr=0.25))
    assert all(map(torch.equal, take_steps(model, optimizer), expected))


def test_depth_of_models_that_are_no_list_of_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1))
            self.stem, self.norm = nn.Conv2d(1, 1, 1), nn.LayerNorm(2)
            self.act, self.blocks, self.head = nn.ReLU(), nn.ModuleList([nn.Linear(1, 1)]), None

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Net()

    names = {"token": 1, "stem.weight": 1, "stem.bias": 1, "norm.weight": 1, "norm.bias": 1,
             "blocks.0.weight": 0, "blocks.0.bias": 0}  # fmt: skip
    assert depths(parts_of(Net(), nn.Linear(1, 1))) == names | {"loss.weight": 0, "loss.bias": 0}
    assert depths(parts_of(Wrapped(), None)) == {f"inner.{n}": d for n, d in names.items()}
    assert depths(parts_of(nn.Linear(1, 1), None)) == {"weight": 0, "bias": 0}


def test_the_first_match_wins_and_the_rest_takes_the_defaults() -> None:
    groups = (
        "optimizer.groups=[{match: conv2d_1.weight, momentum: 0.5},"
        "{match: ['*conv*.weight'], name: filters, lr: 0.5, weight_decay: 0.1},"
        "{match: '*shortcut*', nesterov: false},"
        "{match: '*.bias', optimizer: {name: adamw, lr: 0.125, eps: 0.01}}]"
    )
    model, optimizer = resnet("optimizer=sgd_momentum", groups)

    def group(name: str) -> str:
        if name == "conv2d_1.weight":
            return "first"
        if "conv" in name and name.endswith("weight"):
            return "filters"
        return "shortcut" if "shortcut" in name else "bias" if name.endswith("bias") else "default"

    sgd: dict[str, dict[str, Any]] = {
        "first": {"momentum": 0.5}, "filters": {"lr": 0.5, "weight_decay": 0.1},
        "shortcut": {"nesterov": False}, "default": {},
    }  # fmt: skip
    expected = copy.deepcopy(fresh())
    named = list(expected.named_parameters())
    plain = [{"params": [p], **sgd[group(n)]} for n, p in named if group(n) != "bias"]
    biases = [p for n, p in named if group(n) == "bias"]
    both = CombinedOptimizer(  # which has a test of its own
        [
            torch.optim.SGD(
                plain, 0.03, momentum=0.9, nesterov=True, weight_decay=0.0005, fused=True
            ),
            torch.optim.AdamW(biases, 0.125, eps=0.01, fused=True),
        ]
    )
    assert all(map(torch.equal, take_steps(model, optimizer), take_steps(expected, both)))
    rates = {g.get("name"): g["lr"] for g in optimizer.param_groups}
    assert rates == {None: 0.03, "filters": 0.5, "*.bias": 0.125}
    assert optimizer.param_groups[0]["lr"] == 0.03


UNMATCHED = {
    "{match: conv9.weight, lr: 1}": (
        "optimizer.groups.0.match=conv9.weight: matches no parameter; did you mean "
        "conv2d_3.weight?; there are conv2d_1.weight, "
    ),
    "{match: '*', lr: 1}, {match: [linear*, conv*], lr: 2}": (
        "optimizer.groups.1.match=linear*, conv*: earlier groups have left nothing to it, and the "
        "first match wins; put it before optimizer.groups.0"
    ),
    "{match: conv*, freeze: true}, {match: '*', freeze: true}": (
        "optimizer.groups.0, optimizer.groups.1: all parameters are frozen"
    ),
    "{match: linear*, optimizer: {name: sgd, lr: 1, nesterov: true}}": (
        "optimizer.groups.0.optimizer: Nesterov momentum requires a momentum"
    ),
}


OWN_CLASS = ("optimizer=custom", "optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1")


def test_options_of_an_optimiser_of_ones_own_are_bound_to_its_signature() -> None:
    wrong = {
        "nestrov: true": "optimizer.groups.0.nestrov=true: SGD has no such argument; did you mean",
        "momentum: two": "optimizer.groups.0.momentum=two: must be a number",
    }
    for option, line in wrong.items():
        with pytest.raises(ConfigError) as raised:
            make_model(compose(*QUICK, *OWN_CLASS, f"optimizer.groups=[{{match: '*', {option}}}]"))
        assert str(raised.value).startswith(line)
    _, optimizer = resnet(*OWN_CLASS, "optimizer.groups=[{match: linear*, momentum: 0.5}]")
    assert [group["momentum"] for group in optimizer.param_groups] == [0, 0.5]


@pytest.mark.parametrize("declared", UNMATCHED)
def test_groups_that_do_not_fit_are_refused_before_data_is_read(
    declared: str, tmp_path: Path
) -> None:
    config = compose(
        *QUICK, "data=cifar10", f"data.root={tmp_path}/none", "data.download=false",
        f"optimizer.groups=[{declared}]",
    )  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        pipeline.assemble(config, tmp_path / "run")
    assert str(raised.value).startswith(UNMATCHED[declared])


def test_words_of_no_decay_are_known() -> None:
    with pytest.raises(
        ConfigError, match=r"no_decay=nrom: matches no parameter; did you mean norm"
    ):
        make_model(compose(*QUICK, "optimizer.no_decay=[bias,nrom]"))
    make_model(compose(*QUICK, "optimizer.no_decay=[bias,norm]"))  # no norm in this network


SMALL = (
    "data=synthetic", "data.shape=[3,16,16]", "data.train_size=48", "data.test_size=12",
    "data.batch_size=8", "network=resnet8", "trainer.max_epochs=2", "optimizer=sgd_momentum",
    "scheduler=cosine", "trainer.log_every_n_steps=2", "recorder=stats",
    "trainer.channels_last=false", "augment=none",
)  # fmt: skip
MIXED = (
    "optimizer.groups=[{match: 'residual_1.*', freeze: true},"
    "{match: '*conv*.weight', name: filters, optimizer: {name: adamw, lr: 0.01}}]"
)


def trained(folder: Path) -> dict[str, Tensor]:
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("model."): value for name, value in saved.items()}


def test_a_training_with_frozen_layers_and_two_optimisers_is_that_of_a_plain_loop(
    train: Any, tmp_path: Path
) -> None:
    for style in STYLES:
        train(*SMALL, MIXED, f"model={style}", name=style)
    found = trained(tmp_path / "nn")
    both = trained(tmp_path / "functional")
    assert all(torch.equal(found[name], both[name]) for name in found)
    expected = plain_loop(*SMALL, MIXED)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    fresh = dict(make_model(seeded(*SMALL)).state_dict())
    frozen = [name for name in found if name.startswith("residual_1.")]
    assert {name.rpartition(".")[2] for name in frozen} >= {"running_mean", "running_var"}
    assert all(torch.equal(found[name], fresh[name]) for name in frozen)
    moved = [n for n in found if n not in frozen and not torch.equal(found[n], fresh[n])]
    assert len(moved) == len(found) - len(frozen)

    from convtrain.gradients import load

    recorded = set(load(tmp_path / "nn", "parameters").column("parameter").to_pylist())
    assert recorded == {n for n in found if n.endswith(("weight", "bias")) and n not in frozen}
    lines = (tmp_path / "nn" / "metrics.csv").read_text().splitlines()
    header = lines[0].split(",")
    first = dict(zip(header, lines[1].split(","), strict=True))
    assert float(first["lr/filters"]) == pytest.approx(float(first["lr"]) / 3)
    written = yaml.safe_load((tmp_path / "nn" / "config.yaml").read_text())["optimizer"]["groups"]
    assert written[1]["optimizer"] == {"name": "adamw", "lr": 0.01}


def seeded(*overrides: str) -> Any:
    config = compose(*QUICK, *overrides)
    torch.manual_seed(config.seed)
    return config


def plain_loop(*overrides: str) -> dict[str, Tensor]:
    """Train as the configuration says, without Lightning and without our groups."""
    from convtrain.assembly import make_data

    config = seeded(*(o for o in overrides if not o.startswith("optimizer.groups")))
    model = make_model(config)
    batches = make_data(config).train_dataloader()
    frozen = model.get_submodule("residual_1").requires_grad_(False)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    filters = [p for n, p in named if "conv" in n]
    others = [p for n, p in named if "conv" not in n]
    optimizers: Sequence[torch.optim.Optimizer] = (
        torch.optim.SGD(others, 0.03, momentum=0.9, nesterov=True, weight_decay=0.0005, fused=True),
        torch.optim.AdamW(filters, 0.01, fused=True),
    )
    steps = 2 * len(batches)

    def cosine(step: int) -> float:
        return (1 + math.cos(math.pi * (step / steps))) / 2

    schedules = [torch.optim.lr_scheduler.LambdaLR(each, cosine) for each in optimizers]
    for epoch in range(2):
        batches.set_epoch(epoch)
        for batch in batches:
            frozen.eval()
            model.zero_grad()
            nn.functional.cross_entropy(model(batch.images), batch.targets).backward()
            for each, schedule in zip(optimizers, schedules, strict=True):
                each.step()
                schedule.step()
    return model.state_dict()


def test_a_group_that_changes_nothing_changes_no_bit(train: Any, tmp_path: Path) -> None:
    clipped = (*SMALL, "network=lenet", "trainer.gradient_clip_val=0.1", "recorder=off")
    train(*clipped, name="without")
    train(*clipped, "optimizer.groups=[{match: '*conv*'}, {match: lin*, lr: 0.03}]", name="with")
    a, b = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("without", "with")
    )
    assert all(
        torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"]
    )


@pytest.mark.parametrize("style", STYLES)
def test_frozen_norms_stay_in_evaluation_mode(style: str) -> None:
    config = compose(
        *RESNET, f"model={style}",
        "optimizer.groups=[{match: 'batch_norm2d_1.*', freeze: true},"
        "{match: residual_1.body.batch_norm2d_1.weight, freeze: true}]",
    )  # fmt: skip
    model = make_model(config)
    task = make_task(config, model)
    for _ in range(2):
        assert not model.get_submodule("batch_norm2d_1").training
        assert model.get_submodule("residual_1.body.batch_norm2d_1").training  # its bias learns
        assert model.training
        task.eval()
        assert not model.training
        task.train()
