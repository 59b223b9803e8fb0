"""Every example of docs/utilities.md runs, and does what the page says of it."""

import re
import shlex
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from omegaconf import OmegaConf
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from convtrain.assembly import make_data, make_model
from convtrain.command.job_config import resolve_config
from convtrain.models.functional import FunctionalModel
from tests.conftest import REPOSITORY, Train, compose

PAGE = (REPOSITORY / "docs" / "utilities.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
STYLES = ("nn", "functional")
ONE_PLAIN_STEP = (
    "optimizer=sgd", "optimizer.lr=1", "scheduler=none", "trainer.max_steps=1",
    "logger=none", "data.limit=128",
)  # fmt: skip


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], flags=re.DOTALL)


def commands(section: str) -> list[list[str]]:
    """Return the overrides of each training command."""
    lines = [line for block in blocks(section, "sh") for line in block.splitlines()]
    assert all(line.startswith("python train.py ") for line in lines)
    return [shlex.split(line)[2:] for line in lines]


def build(section: str, style: str) -> nn.Module:
    """Build a section's one network as ``python train.py network=mine`` would."""
    (text,) = blocks(section, "yaml")
    plain = compose(f"model={style}").model_dump(by_alias=True)
    config = resolve_config(OmegaConf.create({**plain, "network": yaml.safe_load(text)}))
    torch.manual_seed(0)
    return make_model(config)


def train_some_steps(model: nn.Module, steps: int = 20) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    random = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.randn(8, 1, 8, 8, generator=random)
        targets = torch.randint(0, 10, (8,), generator=random)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
    model.eval()


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "docs/utilities.md", "exec"), names)
    return names


def test_no_example_is_forgotten() -> None:
    kinds = re.findall(r"^```(\w+)$", PAGE, flags=re.MULTILINE)
    assert {kind: kinds.count(kind) for kind in kinds} == {"yaml": 3, "sh": 2, "python": 4}


@pytest.mark.parametrize("section", [name for name in SECTIONS if "```yaml" in SECTIONS[name]])
def test_a_network_trains_to_the_same_bits_in_both_styles(section: str) -> None:
    models = [build(section, style) for style in STYLES]
    for model in models:
        train_some_steps(model)
    tree, explicit = (model.state_dict() for model in models)
    assert list(tree) == list(explicit)
    assert all(torch.equal(tree[name], explicit[name]) for name in tree)
    assert isinstance(models[1], FunctionalModel)


@pytest.mark.parametrize("style", STYLES)
def test_initial_weights(style: str) -> None:
    model = build("Initial weights", style)
    weights = dict(model.named_parameters())
    biases = [name for name in weights if name.endswith(".bias")]
    assert len(biases) == 4
    assert not any(weights[name].any() for name in biases)
    rows = weights["stem.weight"].flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(8))
    expected = (2 / (8 * 3 * 3)) ** 0.5  # kaiming_normal, fan_out
    assert weights["conv2d_2.weight"].std().item() == pytest.approx(expected, rel=0.1)
    assert weights["linear_1.weight"].std().item() == pytest.approx(0.02, rel=0.1)


def computed_weight(model: nn.Module, layer: str) -> Tensor:
    (parametrization,) = (
        module for name, module in model.named_modules() if name == f"{layer}.parametrizations"
    )
    return parametrization.get_submodule("weight")()


@pytest.mark.parametrize("style", STYLES)
def test_parametrizations_hold_after_training(style: str) -> None:
    model = build("Parametrizations", style)
    train_some_steps(model)
    names = [name for name, _ in model.named_parameters()]
    assert "conv2d_1.parametrizations.weight.original0" in names
    assert "conv2d_1.weight" not in names
    length, direction = (
        model.get_parameter(f"conv2d_1.parametrizations.weight.original{index}") for index in (0, 1)
    )
    filters = length * direction / direction.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(computed_weight(model, "conv2d_1"), filters)
    largest = torch.linalg.matrix_norm(computed_weight(model, "linear_1"), 2)
    assert largest.item() == pytest.approx(1, abs=0.05)
    head = computed_weight(model, "head")
    torch.testing.assert_close(head @ head.T, torch.eye(10), atol=1e-5, rtol=0)


@pytest.mark.parametrize("style", STYLES)
def test_what_is_pruned_stays_zero(style: str) -> None:
    model = build("Pruning", style)
    masks = {name: mask.clone() for name, mask in model.named_buffers() if name.endswith("_mask")}
    assert (masks["conv2d_1.weight_mask"].flatten(1).sum(1) == 0).sum() == 2
    assert masks["linear_1.weight_mask"].mean() == 0.5
    train_some_steps(model)
    images = torch.randn(2, 1, 8, 8)
    scores = model(images)
    with torch.no_grad():  # what lies under the mask has no effect
        for name, mask in masks.items():
            assert torch.equal(model.get_buffer(name), mask)
            model.get_parameter(name.replace("_mask", "_orig")).masked_fill_(mask == 0, 7.0)
    assert torch.equal(model(images), scores)


@pytest.mark.parametrize("style", STYLES)
def test_clipping_bounds_the_first_step(style: str, train: Train, tmp_path: Any) -> None:
    """With a learning rate of 1 and no momentum, a step is the clipped gradient itself."""
    by_norm, by_value = commands("Gradient clipping")
    steps: list[Tensor] = []
    for index, overrides in enumerate(([], by_norm, by_value)):
        config = compose(*ONE_PLAIN_STEP, *overrides, f"model={style}")
        pl.seed_everything(config.seed, verbose=False)
        make_data(config)
        before = dict(make_model(config).named_parameters())
        train(*ONE_PLAIN_STEP, *overrides, f"model={style}", name=str(index))
        saved = torch.load(tmp_path / str(index) / "checkpoints" / "last.ckpt", weights_only=True)
        after = saved["state_dict"]
        steps.append(torch.cat([(p - after[f"model.{n}"]).flatten() for n, p in before.items()]))
    free, shortened, cut = (step.detach() for step in steps)
    assert free.norm() > 0.5
    torch.testing.assert_close(shortened, free * 0.1 / free.norm(), atol=1e-6, rtol=0)
    torch.testing.assert_close(cut, free.clamp(-0.001, 0.001), atol=1e-6, rtol=0)
    assert (free.abs() > 0.002).any()


def test_clipping_from_python() -> None:
    names = run(*blocks("Gradient clipping", "python"))
    assert names["before"] > 1
    assert names["after"].item() == pytest.approx(1)
    assert names["largest"].item() == pytest.approx(0.01)


def test_parameters_as_one_vector() -> None:
    names = run(*blocks("Parameters as one vector", "python"))
    assert names["vector"].shape == (64 * 3 + 3,)
    assert torch.equal(names["doubled"], 2 * names["scores"])


@pytest.mark.parametrize("style", STYLES)
def test_sync_batchnorm_is_a_switch(style: str) -> None:
    (overrides,) = commands("Several processes")
    for override in (overrides, overrides[:1]):
        config = compose(*override, f"model={style}")
        model = make_model(config)
        if isinstance(model, FunctionalModel):
            kinds = [function.kind for function in model._function]
        else:
            kinds = [type(module) for module in model.children()]
        assert kinds.count(nn.SyncBatchNorm) == (3 if config.trainer.sync_batchnorm else 0)
        assert kinds.count(nn.BatchNorm2d) == (0 if config.trainer.sync_batchnorm else 3)


def test_sharding_from_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """In a world of one process; tests/models/test_data_parallel.py has two."""
    (code,) = blocks("Several processes", "python")
    assert 'init_process_group("gloo")' in code
    store = distributed.FileStore(str(tmp_path / "meeting"), 1)
    start = distributed.init_process_group
    monkeypatch.setattr(
        distributed,
        "init_process_group",
        lambda backend: start(backend, store=store, rank=0, world_size=1),
    )
    names = run(code)
    assert not distributed.is_initialized()
    assert names["losses"][-1] < names["losses"][0]
    assert all(isinstance(parameter, DTensor) for parameter in names["model"].parameters())


def test_layers_with_several_inputs() -> None:
    names = run(*blocks("Layers with several inputs", "python"))
    images, restored = names["images"], names["restored"]
    kept = restored != 0
    assert kept.sum() == images.numel() / 4
    assert torch.equal(restored[kept], images[kept])
    assert names["bilinear"].get_parameter("weight").grad.shape == (3, 16, 4)
