"""The recorder in every case in which recorders go wrong, against gradients taken by hand."""

import copy
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import convtrain
from convtrain.gradients import load
from convtrain.gradients.record.schedule import Plan
from convtrain.gradients.record.statistics import STATISTICS
from tests.conftest import slow_but
from tests.gradients.harness import FULL, STATS, Module, by_hand, every, fit, squares

NETWORK = [
    {"Conv2d": {"out_channels": 4, "kernel_size": 3, "bias": False}},
    "BatchNorm2d",
    {"ReLU": {"inplace": True}},
    {"Dropout": {"p": 0.3}},
    "Flatten",
    {"Linear": {"out_features": 5}},
]
SHAPE = (2, 8, 8)
CLOSE: dict[str, float] = {"rtol": 3e-6, "atol": 1e-9}


def network(style: Any = "nn", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return convtrain.build_model(NETWORK, SHAPE, style=style)


def images(count: int, *, seed: int = 1, size: int = 6) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(size, *SHAPE, generator=random) for _ in range(count)]


def steps_of(run: Path) -> list[dict[str, Any]]:
    return load(run, "steps").to_pylist()


def column(run: Path, name: str, what: str = "norm") -> dict[int, float]:
    """Return what is recorded of a parameter, by step."""
    rows = load(run).to_pylist()
    return {row["step"]: row[what] for row in rows if row["parameter"] == f"model.{name}"}


def assert_close(found: Any, expected: Any, **tolerance: Any) -> None:
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    torch.testing.assert_close(found, expected, **{**CLOSE, **tolerance}, equal_nan=True)


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize(
    ("accumulate", "clip"),
    [(1, {}), (2, {}), (1, {"norm": 0.05}), (1, {"norm": 1e6}), (2, {"value": 0.01})],
    ids=["plain", "accumulated", "clipped by norm", "not clipped", "clipped by value"],
)
def test_a_row_for_every_real_step(
    style: str, accumulate: int, clip: dict[str, float], tmp_path: Path
) -> None:
    """Five micro-batches leave a remainder when two make a step."""
    model, batches = network(style), images(5)
    ((algorithm, value),) = clip.items() or [(None, None)]
    fit(
        Module(copy.deepcopy(model), batches, squares),
        tmp_path,
        STATS,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=value,
        gradient_clip_algorithm=algorithm,
    )
    expected = list(
        by_hand(
            model,
            batches,
            accumulate=accumulate,
            clip_norm=clip.get("norm"),
            clip_value=clip.get("value"),
        )
    )
    rows = steps_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, len(expected) + 1))
    assert len(expected) == (5 if accumulate == 1 else 3)
    for row, step in zip(rows, expected, strict=True):
        assert_close(row["norm"], step.total)
        assert_close(row["clipped_norm"], step.clipped)
        assert_close(row["clip_coefficient"], step.clipped / step.total)
        assert_close(row["loss"], step.loss)
        assert (row["micro_batches"], row["lr"]) == (step.micro_batches, [0.1])
        assert (row["nonfinite"], row["first_nonfinite"], row["skipped"]) == (0, None, False)
        assert row["loss_scale"] is None
    for name in expected[0].gradients:
        gradients = [step.gradients[name].double() for step in expected]
        for what, formula in FORMULAS.items():
            assert_close(
                list(column(tmp_path, name, what).values()), [formula(g) for g in gradients]
            )
        ratios = list(column(tmp_path, name, "update_ratio").values())
        assert_close(ratios, [step.ratios[name] for step in expected], rtol=2e-4)
        cosines = list(column(tmp_path, name, "cosine").values())
        pairs = zip(gradients[1:], gradients, strict=False)
        angles = [F.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs]
        assert cosines[0] is None
        assert_close(cosines[1:], angles, rtol=2e-4, atol=1e-6)


def _formula(definition: str) -> Callable[[Tensor], Any]:
    return lambda g: eval(definition, {"np": np, "x": g.detach().double().numpy().ravel()})


FORMULAS = {statistic.name: _formula(statistic.definition) for statistic in STATISTICS}


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_scaler_leaves_no_trace_in_the_values(fused: bool, tmp_path: Path) -> None:
    model, batches = network(), images(4)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    module = Module(copy.deepcopy(model), batches, _in_float32, fused=fused)
    fit(module, tmp_path, STATS, plugins=[precision])
    expected = list(by_hand(model, batches, _in_float32))
    for row, step in zip(steps_of(tmp_path), expected, strict=True):
        assert_close(row["norm"], step.total)
        assert_close(row["loss"], step.loss)
        assert (row["loss_scale"], row["skipped"]) == (2.0**10, False)
    for name in expected[0].gradients:
        for what, formula in FORMULAS.items():
            values = [formula(step.gradients[name].double()) for step in expected]
            assert_close(list(column(tmp_path, name, what).values()), values)


def _in_float32(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return squares(model, batch)


def test_a_step_that_the_scaler_skips_is_a_row_that_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A scale too large for float16 is halved by the scaler, which is its way and no alarm."""
    precision = MixedPrecision(
        "16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**18)
    )
    module = Module(network(), images(8), squares)
    before = [p.detach().clone() for p in module.parameters()]
    trainer = fit(module, tmp_path, STATS, plugins=[precision], recorder={"alarm": "stop"})
    rows = steps_of(tmp_path)
    skipped = [row["skipped"] for row in rows]
    assert skipped == [True] * sum(skipped) + [False] * (8 - sum(skipped))
    assert 0 < sum(skipped) < 8
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert trainer.global_step == 8
    for row, next_row in itertools.pairwise(rows):
        assert (row["nonfinite"] > 0) == row["skipped"]
        assert next_row["loss_scale"] == row["loss_scale"] * (0.5 if row["skipped"] else 1)
    ratios = column(tmp_path, "linear_1.weight", "update_ratio")
    assert all((ratio == 0) == skipped[step - 1] for step, ratio in ratios.items())
    assert not any(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert "not finite" not in caplog.text


def test_under_torch_compile_the_parameters_are_recorded_and_the_layers_said_to_be_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, batches = network(), images(3)
    compiled: Any = torch.compile(copy.deepcopy(model), backend="eager")
    fit(Module(compiled, batches, squares), tmp_path, FULL)
    expected = [step.total for step in by_hand(model, batches)]
    assert_close([row["norm"] for row in steps_of(tmp_path)], expected)
    assert "the model is compiled" in caplog.text
    assert not list((tmp_path / "gradients").glob("layers/*"))


class Awkward(nn.Module):
    """In-place operations, a layer that is used twice, tied weights, and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.second.weight
        self.idle = nn.Linear(4, 4)

    def forward(self, input: Tensor) -> Tensor:
        out = self.second(self.relu(self.first(input)))
        out += input
        return self.tied(self.relu(out))


def _awkward_by_hand(model: Awkward, input: Tensor) -> dict[str, Tensor]:
    """Return every layer's output, by the name of its record, without in-place operations."""
    outputs = {"input": input, "first": model.first(input)}
    outputs["relu#0"] = outputs["first"].relu()
    outputs["second"] = model.second(outputs["relu#0"])
    outputs["relu#1"] = (outputs["second"] + input).relu()
    outputs["tied"] = model.tied(outputs["relu#1"])
    return outputs


def test_layers_with_in_place_operations_and_layers_used_twice(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Awkward()
    input = torch.randn(5, 4)
    outputs = _awkward_by_hand(copy.deepcopy(model), input.clone().requires_grad_())
    gradients = torch.autograd.grad(outputs["tied"].square().mean(), list(outputs.values()))
    fit(Module(model, [input], squares), tmp_path, FULL)
    rows = {
        row["layer"].removeprefix("model."): row for row in load(tmp_path, "layers").to_pylist()
    }
    assert list(rows) == ["input", "first", "relu#0", "second", "relu#1", "tied"]
    for (layer, output), gradient in zip(outputs.items(), gradients, strict=True):
        for what, formula in FORMULAS.items():
            assert_close(rows[layer][f"value_{what}"], formula(output.detach().double()))
            assert_close(rows[layer][f"gradient_{what}"], formula(gradient.double()))
    (path,) = (tmp_path / "gradients").glob("graph-*.json")
    graph = json.loads(path.read_text())
    assert graph["model.first"][0] == "AddmmBackward0"
    assert set(graph["model.first"][1:]) == {"AccumulateGrad", "TBackward0"}
    assert graph["model.relu#1"][0] == "ReluBackward0"
    assert input.grad is None
    assert not input.requires_grad


def test_tied_weights_count_once_and_keep_their_other_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, batch = Awkward(), torch.randn(5, 4)
    (step,) = by_hand(model, [batch])
    fit(Module(model, [batch], squares), tmp_path)
    (row,) = steps_of(tmp_path)
    assert_close(row["norm"], step.total)
    kept = json.loads((tmp_path / "gradients" / "parameters.json").read_text())
    also = {entry["parameter"]: entry["also"] for entry in kept}
    assert also["model.second.weight"] == ["model.tied.weight"]
    assert "model.tied.weight" not in also


def test_a_parameter_without_a_gradient_is_absent_until_it_has_one(tmp_path: Path) -> None:
    class Thaw(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
            module.model.first.requires_grad_(trainer.current_epoch == 1)

    torch.manual_seed(0)
    model = Awkward()
    module = Module(model, [torch.randn(5, 4)] * 3, squares)
    fit(module, tmp_path, STATS, max_epochs=2, callbacks=[Thaw()])
    assert list(column(tmp_path, "first.weight")) == [4, 5, 6]
    assert list(column(tmp_path, "second.weight")) == [1, 2, 3, 4, 5, 6]
    assert column(tmp_path, "idle.weight") == {}
    cosines = column(tmp_path, "first.weight", "cosine")
    assert cosines[4] is None
    assert all(0.5 < cosines[step] <= 1.000001 for step in (5, 6))


def test_a_layer_that_is_added_while_training_is_recorded_from_then_on(tmp_path: Path) -> None:
    class Grow(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                module.model.append(nn.Linear(4, 3))
                trainer.optimizers[0].add_param_group({"params": module.model[-1].parameters()})

    model = nn.Sequential(nn.Linear(4, 4))
    fit(Module(model, [torch.randn(5, 4)] * 4, squares), tmp_path, callbacks=[Grow()])
    assert list(column(tmp_path, "0.weight")) == [1, 2, 3, 4]
    assert list(column(tmp_path, "1.weight")) == [3, 4]


def test_sparse_gradients_count_each_row_once(tmp_path: Path) -> None:
    """The same row twice in a batch: uncoalesced, its parts would be squared one by one."""
    torch.manual_seed(0)
    model = nn.EmbeddingBag(10, 4, sparse=True, mode="sum")
    batches = [torch.tensor([[1, 1, 2], [3, 1, 0]]), torch.tensor([[5, 5, 5]])]
    dense = nn.EmbeddingBag(10, 4, mode="sum", _weight=model.weight.detach().clone())
    fit(Module(model, batches, squares, momentum=0), tmp_path, STATS)
    expected = list(by_hand(dense, batches, momentum=0))
    assert_close([row["norm"] for row in steps_of(tmp_path)], [step.total for step in expected])
    maxima = column(tmp_path, "weight", "maximum")
    assert_close(maxima[1], expected[0].gradients["weight"].max())


class Formula(nn.Module):
    """A parameter of some type in ``(weight * input).sum()``, whose gradient is the input."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)

    def forward(self, input: Tensor) -> Tensor:
        total = torch.zeros(())
        for weight in self.weights:
            term = (weight * input[: weight.numel()].reshape(weight.shape).to(weight.dtype)).sum()
            total = total + (term.real if term.is_complex() else term).float()
        return total


def _sum(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64], ids=str
)
def test_other_number_types_are_added_up_without_overflow(dtype: Any, tmp_path: Path) -> None:
    """float16 overflows at 65504, the norm of these 300 values is 86603."""
    values = torch.full((300,), 5000.0)
    model = Formula(nn.Parameter(torch.ones(300, dtype=dtype)), nn.Parameter(torch.ones(20)))
    fit(Module(model, [values], _sum, lr=1e-9), tmp_path, FULL)
    exact = values.to(dtype).abs().double().norm()
    assert_close(column(tmp_path, "weights.0")[1], exact)
    assert_close(steps_of(tmp_path)[0]["norm"], (exact**2 + 20 * 5000.0**2) ** 0.5)
    assert_close(column(tmp_path, "weights.0", "maximum")[1], values.to(dtype)[0].real.double())


def test_parameters_without_elements_have_the_norm_zero(tmp_path: Path) -> None:
    model = Formula(nn.Parameter(torch.ones(0)), nn.Parameter(torch.ones(3)))
    fit(Module(model, [torch.ones(3)], _sum), tmp_path, FULL)
    assert column(tmp_path, "weights.0") == {1: 0.0}
    assert_close(steps_of(tmp_path)[0]["norm"], 3**0.5)


def test_what_is_not_finite_is_decided_by_the_values(tmp_path: Path) -> None:
    """The square of 1e20 is infinite in float32, 1e20 itself is not."""
    fit(Module(Formula(nn.Parameter(torch.ones(2))), [torch.tensor([1e20, 0.0])], _sum), tmp_path)
    (row,) = steps_of(tmp_path)
    assert (row["nonfinite"], row["first_nonfinite"]) == (0, None)
    assert_close(row["norm"], 1e20)
    assert_close(column(tmp_path, "weights.0")[1], 1e20)


def test_nan_and_infinity_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    weights = [nn.Parameter(torch.ones(n)) for n in (1, 2, 3)]
    batch = torch.tensor([1.0, torch.inf, -torch.inf])
    fit(Module(Formula(*weights), [batch], _sum), tmp_path, FULL)
    (row,) = steps_of(tmp_path)
    assert (row["nonfinite"], row["first_nonfinite"]) == (2, "model.weights.1")
    histograms = load(tmp_path, "histograms").to_pylist()
    assert [(h["posinf"], h["neginf"]) for h in histograms] == [(0, 0), (1, 0), (1, 1)]


def test_several_optimizers_have_rows_of_their_own(tmp_path: Path) -> None:
    class Two(Module):
        def __init__(self) -> None:
            super().__init__(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), [], squares)
            self.batches, self.automatic_optimization = [torch.ones(2, 3)] * 3, False

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(m.parameters(), lr=0.1 * (i + 1)) for i, m in
                    enumerate(self.model.children())]  # fmt: skip

        def training_step(self, batch: Tensor, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(squares(self.model, batch))
                optimizer.step()

    torch.manual_seed(0)
    module = Two()
    model = copy.deepcopy(module.model)
    fit(module, tmp_path, STATS)
    rows = steps_of(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["optimizer"] for row in rows] == [0, 1] * 3
    assert [row["lr"] for row in rows] == [[0.1], [0.2]] * 3
    assert list(column(tmp_path, "0.weight")) == [1, 3, 5]
    assert list(column(tmp_path, "1.weight")) == [2, 4, 6]
    for row in rows:
        layer = model.get_submodule(str(row["optimizer"]))
        loss = squares(model, torch.ones(2, 3))
        found = torch.autograd.grad(loss, list(layer.parameters()))
        assert_close(row["norm"], sum(g.double().square().sum() for g in found) ** 0.5)
        with torch.no_grad():
            for parameter, gradient in zip(layer.parameters(), found, strict=True):
                parameter.sub_(row["lr"][0] * gradient)
    cosines = column(tmp_path, "0.weight", "cosine")
    assert all(cosines[step] > 0.5 for step in (3, 5))


def test_debug_keeps_whole_gradients_of_chosen_parameters(tmp_path: Path) -> None:
    model, batches = network(), images(3)
    plan = Plan(tensors=every(2), tensor_names=("*conv*", "*.bias"))
    fit(Module(copy.deepcopy(model), batches, squares), tmp_path, plan)
    _, second, _ = by_hand(model, batches)
    (path,) = (tmp_path / "gradients" / "tensors").iterdir()
    assert path.stem == "000000000002"
    kept = load_file(path)
    names = {n for n in second.gradients if "conv" in n or n.endswith(".bias")}
    assert set(kept) == {f"model.{name}" for name in names} | {"input"}
    for name in names:
        torch.testing.assert_close(kept[f"model.{name}"], second.gradients[name])
    assert kept["input"].shape == batches[1].shape


def test_globs_choose_what_is_recorded_and_the_total_counts_all(tmp_path: Path) -> None:
    model, batches = network(), images(2)
    plan = Plan(include=("*weight",), exclude=("*norm*",))
    fit(Module(copy.deepcopy(model), batches, squares), tmp_path, plan)
    found = {row["parameter"] for row in load(tmp_path).to_pylist()}
    assert found == {"model.conv2d_1.weight", "model.linear_1.weight"}
    expected = [step.total for step in by_hand(model, batches)]
    assert_close([row["norm"] for row in steps_of(tmp_path)], expected)


def test_the_schedule_is_kept(tmp_path: Path) -> None:
    plan = Plan(
        norms=every(4, first=2),
        statistics=every(5),
        distributions=every(6),
    )
    fit(Module(network(), images(12), squares), tmp_path, plan)
    assert [row["step"] for row in steps_of(tmp_path)] == [1, 2, 4, 5, 6, 8, 10, 12]
    cosines = column(tmp_path, "linear_1.weight", "cosine")
    assert [step for step, value in cosines.items() if value is not None] == [5, 10]
    assert {row["step"] for row in load(tmp_path, "layers").to_pylist()} == {6, 12}


@pytest.mark.parametrize("name", slow_but(["resnet18", "mobilenet_v2", "densenet121"], "resnet18"))
def test_torchvisions_own_networks(name: str, tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=4)
    batch = torch.randn(2, 3, 64, 64)
    (step,) = by_hand(model, [batch])
    peer = copy.deepcopy(model)
    module = Module(model, [batch], squares)
    fit(module, tmp_path, FULL)
    fit(Module(peer, [batch], squares), tmp_path / "off", None)
    assert_close(steps_of(tmp_path)[0]["norm"], step.total, rtol=1e-5)
    for parameter, gradient in step.gradients.items():
        expected = gradient.double().norm()
        assert_close(column(tmp_path, parameter)[1], expected, rtol=1e-4, atol=1e-6 * step.total)
    for mine, theirs in zip(module.state_dict().values(), peer.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


class NothingBack(torch.autograd.Function):
    """Hands its input on, and no gradient back, as a GPU's LSTM does for a state without use."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return tensor.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> None:
        return None


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, input: Tensor) -> Tensor:
        return self.used(input) + NothingBack.apply(self.unused(input))


def test_an_output_that_no_gradient_reaches_is_recorded_without_one(tmp_path: Path) -> None:
    fit(Module(Unused(), [torch.randn(3, 4)], squares), tmp_path, FULL)
    rows = {row["layer"]: row for row in load(tmp_path, "layers").to_pylist()}
    norms = {name: row["gradient_norm"] for name, row in rows.items() if name != "input"}
    assert norms["model.used"] > 0
    assert math.isnan(norms["model.unused"])
