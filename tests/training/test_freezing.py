"""``model.freeze`` and ``model.unfreeze_at_epoch`` against plain autograd and torch.optim."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parametrizations
from torchvision import models

from convtrain.assembly import make_data, make_model
from convtrain.errors import ConfigError
from convtrain.forecast import forecast
from convtrain.gradients import load
from convtrain.models.functional import functionalize
from convtrain.models.head import head_of
from convtrain.report.page import write_report
from convtrain.run.directory import Run
from convtrain.training.freezing import freeze
from convtrain.training.optimizers.build import make_optimizer
from convtrain.training.parts import parts_of
from tests.conftest import QUICK, REPOSITORY, Train, compose, compose_once

SMALL = (
    "data=synthetic", "data.shape=[3,16,16]", "data.train_size=48", "data.test_size=12",
    "data.batch_size=8", "network=resnet8", "trainer.max_epochs=3", "optimizer=sgd_momentum",
    "scheduler=cosine", "trainer.log_every_n_steps=2", "recorder=debug", "augment=none",
    "trainer.channels_last=false", "trainer.gradient_clip_val=1", "recorder.max_overhead=1",
)  # fmt: skip
UNFREEZES = ("model.freeze=backbone", "model.unfreeze_at_epoch=1")
HEAD = ("linear_1.weight", "linear_1.bias")


def weights_of(run: Path) -> dict[str, Tensor]:
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("model."): value for name, value in saved.items()}


def plain_loop(*overrides: str) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Train the head for an epoch and then everything; return the weights and gradient norms."""
    config = compose_once(*QUICK, *overrides)
    torch.manual_seed(config.seed)
    model = make_model(config)
    batches = make_data(config).train_dataloader()
    named = dict(model.named_parameters())
    head = [named.pop(name) for name in HEAD]
    optimizer = torch.optim.SGD(
        [{"params": head}, {"params": [*named.values()]}],
        0.03, momentum=0.9, nesterov=True, weight_decay=0.0005, fused=True,
    )  # fmt: skip
    steps, recorded = 3 * len(batches), list[dict[str, float]]()
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * (step / steps))) / 2
    )
    for epoch in range(3):
        batches.set_epoch(epoch)
        model.train(epoch > 0)  # without dropout, evaluation is that of the norms
        for parameter in named.values():
            parameter.requires_grad_(epoch > 0)
        for batch in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.images), batch.targets).backward()
            trained = [(n, p) for n, p in model.named_parameters() if p.grad is not None]
            recorded.append({n: float(p.grad.norm()) for n, p in trained})
            clip_grad_norm_([p for _, p in trained], 1)
            optimizer.step()
            schedule.step()
    return model.state_dict(), recorded


def test_a_backbone_that_unfreezes_is_trained_as_by_a_plain_loop(
    train: Train, tmp_path: Path
) -> None:
    results = [
        train(*SMALL, *UNFREEZES, f"model={style}", name=style) for style in ("nn", "functional")
    ]
    found, both = weights_of(tmp_path / "nn"), weights_of(tmp_path / "functional")
    assert all(torch.equal(found[name], both[name]) for name in found)
    expected, recorded = plain_loop(*SMALL)
    for name, tensor in expected.items():  # clip_grad_norm_ rounds the norm in another way
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
    norms: list[dict[str, float]] = [{} for _ in recorded]
    for row in load(tmp_path / "nn", "parameters").to_pylist():
        norms[row["step"] - 1][row["parameter"]] = row["norm"]
    assert [set(row) for row in norms] == [set(row) for row in recorded]
    assert set(norms[0]) == set(HEAD)
    assert all(norms[i] == pytest.approx(row, rel=1e-3) for i, row in enumerate(recorded))
    assert not any("dead" in line.lower() for line in results[0]["gradients"])
    page = write_report(Run(tmp_path / "nn")).read_text()
    assert "78,042 parameters, 77,392 of them frozen until epoch 1, written as modules" in page


def shipped() -> list[str]:
    files = (REPOSITORY / "configs" / "optimizer").glob("[!_]*.yaml")
    return sorted(path.stem for path in files if path.stem != "custom")


@pytest.mark.parametrize("name", shipped())
def test_an_optimiser_begins_unfrozen_parameters_as_a_fresh_one(name: str) -> None:
    config = compose_once(*QUICK, f"optimizer={name}", *UNFREEZES)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    parts = parts_of(model, None)
    frozen = freeze(config.optimizer, config.model, parts)
    optimizer = make_optimizer(config.optimizer, parts, start_epochs=frozen.start_epochs)
    backbone, before = [*model[0].parameters(), *model[1].parameters()], copy.deepcopy(model)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6

    def step(trained: nn.Module, its_optimizer: torch.optim.Optimizer, seed: int) -> None:
        its_optimizer.zero_grad()
        images = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
        nn.functional.cross_entropy(trained(images), torch.arange(5) % 4).backward()
        its_optimizer.step()

    for seed in range(3):
        step(model, optimizer, seed)
    assert all(map(torch.equal, backbone, before.parameters()))
    assert torch.equal(model[1].running_mean, torch.zeros(3))  # type: ignore[arg-type]
    assert not torch.equal(model[3].weight, before[3].weight)  # type: ignore[arg-type]
    saved = copy.deepcopy(optimizer.state_dict())
    assert frozen.enter(0) is False
    assert frozen.enter(1) is True
    assert frozen.enter(1) is False
    assert model[1].training
    fresh = copy.deepcopy(model)
    again = make_optimizer(config.optimizer, parts_of(fresh, None))
    optimizer.load_state_dict(saved)  # as a resumed run does
    step(model, optimizer, seed=7)
    step(fresh, again, seed=7)
    pairs = zip(model[:2].parameters(), fresh[:2].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(model[0].weight, before[0].weight)  # type: ignore[arg-type]


def test_norms_follow_their_parameters() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False), nn.Dropout(),
        nn.Flatten(), nn.Linear(2, 2),
    )  # fmt: skip
    for made in (model, functionalize(copy.deepcopy(model))):
        config = compose_once(*QUICK, "model.freeze=[0.*,2.*,1.weight]")
        assert not freeze(config.optimizer, config.model, parts_of(made, None)).enter(9)
        assert {n: m.training for n, m in made.named_modules() if n} == {
            "0": True, "1": True, "2": False, "3": True, "4": True, "5": True
        }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "head"),
    [("resnet18", "fc"), ("squeezenet1_0", "classifier.1"), ("vit_b_16", "heads.head")],
)
def test_the_head_of_torchvisions_models(name: str, head: str) -> None:
    with torch.device("meta"):
        model = models.get_model(name, weights=None, num_classes=7)
    assert head_of(model) == (head,)
    assert model.get_submodule(head).weight.shape[0] == 7


def test_the_head_of_other_models() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3), nn.LayerNorm(3))
    assert head_of(plain) == head_of(functionalize(copy.deepcopy(plain))) == ("2",)
    parametrizations.weight_norm(plain[2])
    assert head_of(plain) == head_of(functionalize(plain, carry=True)) == ("2",)
    assert head_of(nn.Linear(2, 2)) == ("",)

    class Distilled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.head_dist, self.stem = (nn.Linear(2, 2) for _ in range(3))

        def get_classifier(self) -> tuple[nn.Module, nn.Module]:
            return self.head, self.head_dist

    assert head_of(Distilled()) == ("head", "head_dist")


def test_the_recipe_gives_the_head_a_higher_rate_and_each_earlier_layer_a_lower_one(
    tmp_path: Path,
) -> None:
    for label in ("a", "b", "c"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / label / "1.png")
    config = compose("experiment=finetune", f"data.root={tmp_path}", "model.weights=null")
    with torch.device("meta"):
        model = models.resnet18(num_classes=3)
    parts = parts_of(model, None)
    starts = freeze(config.optimizer, config.model, parts).start_epochs
    optimizer = make_optimizer(config.optimizer, parts, fused=False, start_epochs=starts)
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    for depth, layer in enumerate(("fc", "layer4", "layer3", "layer2", "layer1", "conv1")):
        (own,) = {rate for name, rate in rates.items() if name.startswith(f"{layer}.")}
        assert own == pytest.approx(0.001 * 0.5**depth * (10 if layer == "fc" else 1))
    assert {names[id(p)] for p in model.parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}
    assert {epoch for name, epoch in starts.items() if name in rates} == {1}


ONE_LAYER = "network.layers=[Flatten,{Linear:{out_features:10}}]"
WRONG = {
    ("model.freeze=[bakbone]",): "model.freeze=bakbone: matches no parameter; did you mean backbon",
    ("model.freeze=[conv2d_1]",): "model.freeze=conv2d_1: matches no parameter; did you mean conv2",
    ("model.freeze=['re_lu_1.*']",): "model.freeze=re_lu_1.*: matches no parameter; there are conv",
    (
        "model.freeze=['re_lu_1.*','conv2d_1.*']",
    ): "model.freeze=re_lu_1.*: matches no parameter; th",
    ("model.freeze=['*.running_var']",): "model.freeze=*.running_var: matches no parameter; there ",
    ("optimizer.groups=[{match: hed}]",): "optimizer.groups.0.match=hed: matches no parameter; did",
    ("optimizer.groups=[{match: conv2d_1, lr: 1}]",): (
        "optimizer.groups.0.match=conv2d_1: matches no parameter; did you mean conv2d_1.*?; there"
    ),
    ("model.freeze=['*']",): "model.freeze: all parameters are frozen, so that nothing is trained",
    ("optimizer.groups=[{match: backbone, lr: 1}]", ONE_LAYER): (
        "optimizer.groups.0.match=backbone: matches no parameter; there are linear_1.weight, "
    ),
    ("model.freeze=[backbone]", ONE_LAYER): (
        "model.freeze=backbone: only the head, the model's last layer, has parameters; omit it"
    ),
}


@pytest.mark.parametrize(("overrides", "line"), WRONG.items(), ids=WRONG.values())
def test_what_cannot_be_frozen_is_one_line(overrides: tuple[str, ...], line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_model(compose(*QUICK, *overrides))
    assert str(raised.value).startswith(line)


RULES = {
    ("model.unfreeze_at_epoch=1",): "nothing is frozen that it could unfreeze; add model.freeze=",
    ("model.freeze=[backbone]", "model.unfreeze_at_epoch=0"): "must be greater than or equal to 1",
    ("model.freeze=[backbone]", "trainer=fsdp"): "is not tested with weights that are divided over",
}


@pytest.mark.parametrize(("overrides", "text"), RULES.items(), ids=RULES.values())
def test_what_the_keys_rule_out(overrides: tuple[str, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        compose(*overrides)


def test_a_forecast_counts_what_is_frozen_and_needs_what_is_trained_in_the_end() -> None:
    plain, later, never = (
        forecast(compose(*QUICK, *SMALL, *more)) for more in ((), UNFREEZES, UNFREEZES[:1])
    )
    assert later.parameters == never.parameters == 64 * 10 + 10
    assert later.frozen == {"frozen until epoch 1": plain.parameters - later.parameters}
    assert never.frozen == {"frozen": plain.parameters - later.parameters}
    assert later.memory == plain.memory
    assert never.memory["gradients"] == never.memory["optimiser state"] == 4 * never.parameters
    assert never.memory["activations"] < plain.memory["activations"] / 10
    rows: list[Any] = [(group.optimizer, group.start_epoch, group.names) for group in later.groups]
    assert rows[0] == ("sgd", 0, list(HEAD))
    assert rows[1][:2] == ("sgd", 1)


def test_a_training_that_ends_before_it_unfreezes_is_warned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = compose_once(*QUICK, *UNFREEZES)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    frozen = freeze(config.optimizer, config.model, parts_of(model, None))
    with caplog.at_level("WARNING", "convtrain"):
        frozen.warn_if_never_due(2)
        assert not caplog.messages
        frozen.warn_if_never_due(1)
    assert caplog.messages[0].startswith("model.unfreeze_at_epoch=1: the training ends with epoch")


def test_steps_may_end_a_training_before_it_unfreezes(
    train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    train(*UNFREEZES, "data.limit=128", "trainer.max_epochs=3", "trainer.max_steps=2")
    assert "model.unfreeze_at_epoch=1: the training ends with epoch 0," in caplog.text
