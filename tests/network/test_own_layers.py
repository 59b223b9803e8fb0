"""Layers of one's own in the declared list: the same in both styles, and one line for a mistake."""

import copy
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn import functional as F

import convtrain
from convtrain.errors import ConfigError
from convtrain.models.build import build_network
from convtrain.models.functional import FunctionalModel
from convtrain.network.resolve import resolve_network
from convtrain.network.summary import summarize
from tests.network.own import Frozen, NotALayer, Scale, Stage, Standardised, Values, Wrong, swish

SHAPE = (3, 6, 6)
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))
STYLES = ("nn", "functional")
LAYERS: list[Any] = [
    {Standardised: {"out_channels": 4, "kernel_size": 3, "gain": 2.0}},
    {swish: {"beta": 1.5}},
    {"tests.network.own.Scale": {"by": 2}},
    {"Residual": [{Stage: None, "name": "mine"}]},
    Frozen,
    {"wide": {"by": 3}},
    {Values: {"most": 1e6}},
    "Flatten",
    {"Linear": {"out_features": 5}},
]
BLOCKS = {"wide": {"takes": {"by": "required"}, "layers": [{"Repeat": {"times": 2, "layers": [
    {"tests.network.own.Scale": {"by": "$by + $index"}}]}}]}}  # fmt: skip


def build(style: Any, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return convtrain.build_model(
        LAYERS, SHAPE, style=style, blocks=BLOCKS, trust=["tests"], **options
    )


def by_hand() -> nn.Module:
    """Return the same network, written as one writes it in PyTorch."""

    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(OrderedDict(mine=Stage(4)))

        def forward(self, input: Tensor) -> Tensor:
            return self.body(input) + input

    class Swish(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            return input * torch.sigmoid(1.5 * input)

    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            standardised_1=Standardised(3, 4, 3, gain=2.0),
            swish_1=Swish(),
            scale_1=Scale(2),
            residual_1=Added(),
            frozen_1=Frozen(4),
            wide_1=nn.Sequential(OrderedDict(scale_1=Scale(3), scale_2=Scale(4))),
            values_1=Values((4, 4, 4), most=1e6),
            flatten_1=nn.Flatten(),
            linear_1=nn.Linear(64, 5),
        )
    )


def trained(model: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.05, momentum=0.9)
    for step in range(3):
        torch.manual_seed(step)
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES), torch.arange(4)).backward()
        optimizer.step()
    return model


def assert_same(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert list(state) == list(expected)
    for key, value in expected.items():
        same = torch.equal(state[key], value) if isinstance(value, Tensor) else state[key] == value
        assert same, key


@pytest.fixture
def expected() -> nn.Module:
    return trained(by_hand())


@pytest.mark.parametrize("style", STYLES)
def test_a_network_with_own_layers_is_the_one_written_by_hand(
    style: str, expected: nn.Module
) -> None:
    model = trained(build(style))
    assert_same(model.state_dict(), expected.state_dict())
    assert expected.state_dict()["wide_1.scale_2.seen"] == 12  # the buffers are replaced, and kept
    assert not model.get_submodule("frozen_1").training
    loaded = build(style)
    loaded.load_state_dict(expected.state_dict())
    assert_same(loaded.state_dict(), expected.state_dict())
    for other in (model, loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.eval()(IMAGES), expected.eval()(IMAGES))


def test_explicit_tensors_reach_own_layers(expected: nn.Module) -> None:
    model = build("functional").eval()
    assert isinstance(model, FunctionalModel)
    parameters, buffers = dict(expected.named_parameters()), dict(expected.named_buffers())
    expected.eval()

    def loss(parameters: dict[str, Tensor]) -> Any:
        return model.apply_with(parameters, buffers, IMAGES).square().sum()

    def reference(parameters: dict[str, Tensor]) -> Any:
        return functional_call(expected, {**parameters, **buffers}, IMAGES).square().sum()

    free = {n: p.detach().clone().requires_grad_() for n, p in parameters.items()}
    found = torch.autograd.grad(loss(free), list(free.values()))
    wanted = torch.autograd.grad(reference(free), list(free.values()))
    assert all(map(torch.equal, found, wanted))


def test_torch_func_differentiates_an_own_layer() -> None:
    model = convtrain.build_model([{Scale: {"by": 2}}, {swish: {}}], SHAPE).eval()
    assert isinstance(model, FunctionalModel)
    buffers = dict(model.named_buffers())
    found = grad(lambda p: model.apply_with(p, buffers, IMAGES).sum())(
        {"scale_1.weight": torch.tensor(3.0)}
    )
    weight = torch.tensor(3.0, requires_grad=True)
    (wanted,) = torch.autograd.grad(swish(IMAGES * weight).sum(), weight)
    assert torch.equal(found["scale_1.weight"], wanted)


def test_functions_of_parameters_reach_inside_own_layers() -> None:
    options: dict[str, Any] = {
        "init": {"*mine.inner.0.weight": "ones", "scale_1.weight": {"constant": {"val": 7}}},
        "parametrize": {"standardised_1.weight": "weight_norm"},
        "prune": {"*mine.inner.0.weight": {"l1_unstructured": {"amount": 2}}},
    }
    tree, explicit = (build(style, **options) for style in STYLES)
    assert tree.get_parameter("scale_1.weight") == 7
    assert tree.get_buffer("residual_1.body.mine.inner.0.weight_mask").sum() == 14
    assert_same(trained(explicit).state_dict(), trained(tree).state_dict())


@pytest.mark.parametrize("style", STYLES)
def test_nothing_inside_an_own_layer_is_overwritten_in_place(style: Any) -> None:
    """Stage reads the convolution's output again after the ReLU."""
    network = resolve_network([Stage, "Flatten"], SHAPE)
    results = []
    for in_place in (False, True):
        torch.manual_seed(0)
        model = build_network(network, style=style, in_place=in_place).eval()
        results.append(model(IMAGES))
    assert torch.equal(*results)


def test_batch_norm_inside_an_own_layer_is_synchronised() -> None:
    network = resolve_network([Stage], SHAPE)
    for style in STYLES:
        model = build_network(network, style=style, sync_batchnorm=True)  # type: ignore[arg-type]
        assert isinstance(model.get_submodule("stage_1.norm"), nn.SyncBatchNorm)


def test_a_summary_counts_an_own_layer_as_one() -> None:
    rows = summarize(resolve_network([Stage, Values, swish], SHAPE))
    assert [(r.path, r.kind, r.output_shape, r.parameters, r.multiply_adds) for r in rows] == [
        ("stage_1", "Stage", (4, 6, 6), 3 * 4 + 4 + 8, 3 * 4 * 36),
        ("values_1", "Values", (4, 6, 6), 4 * 36, 0),
        ("swish_1", "swish", (4, 6, 6), 0, 0),
    ]


def test_shapes_draw_no_random_numbers() -> None:
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    resolve_network([Values, Stage], SHAPE)
    assert torch.rand(1) == first


OWN = "tests.network.own"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({Scale: {"bye": 2}}, r"layers\[0\] scale_1 \(.*own\.Scale\): no argument is called bye; "
                              r"did you mean by\?"),
        ({Scale: {"by": "two"}}, "by='two' must be a number"),
        ({Standardised: {"gian": 2}}, r"called gian; did you mean gain\?"),
        ({Standardised: {"kernel_size": 3}}, "out_channels must be given"),
        ({Stage: {"width": 0}}, r"stage_1 .*: input \(N, 3, 6, 6\), .*'width': 0.*own\.py, line"),
        ({swish: {"betas": 2}}, r"no argument is called betas; did you mean beta\?"),
        ({Scale: 3}, "arguments are given by name"),
        (NotALayer, "no class derived from torch.nn.Module"),
        ({Wrong: {"how": "lazy"}}, "sizes follow from its first input.*: in_channels"),
        ({Wrong: {"how": "constructor"}}, r"RuntimeError: broken \(own\.py, line"),
        ({Wrong: {"how": "evaluation"}}, r"RuntimeError: broken \(own\.py, line"),
        ({Wrong: {"how": "shape"}}, r"returns \(3, 6, 6\) in training and \(6, 6\) in evaluation"),
        ({Wrong: {"how": "dict"}}, "returns .* a dict; return a tensor"),
        (f"{OWN}.Scales", "cannot be imported: .*Scales"),
        (f"{OWN}.NotALayer", "expected a class derived from torch.nn.Module"),
        ("os.system", "not allowed: os belongs to Python"),
        ("torch.nn.ReLU", "layers of torch.nn have no path, as ReLU"),
    ],
    ids=lambda value: value if isinstance(value, str) else "declared",
)  # fmt: skip
def test_a_mistake_is_one_line(layer: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        convtrain.build_model([layer], SHAPE, trust=["tests"])
    assert len(str(raised.value).splitlines()) == 1
