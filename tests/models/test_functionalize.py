"""functionalize(): the same tensors under the same names, explicit; what is unknown is refused."""

import copy
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from convtrain.errors import NetworkError
from convtrain.models.build import build_model
from convtrain.models.functional import FunctionalModel, functionalize
from convtrain.models.observe import observe_outputs

CONVNET: list[Any] = [
    {"Conv2d": {"out_channels": 4, "kernel_size": 3}},
    "BatchNorm2d",
    "ReLU",
    {"Residual": {"body": [{"Conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}]}},
    {"MaxPool2d": {"kernel_size": 2}},
    "Flatten",
    {"Linear": {"out_features": 5}},
]


class Doubled(nn.Module):
    """A forward that no catalogue knows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("shift", torch.tensor(1.0))

    def forward(self, input: Tensor) -> Tensor:
        return self.inner(input) * self.scale + self.shift


@pytest.fixture
def convnet() -> FunctionalModel:
    torch.manual_seed(0)
    model = build_model(CONVNET, (1, 8, 8), style="functional")
    assert isinstance(model, FunctionalModel)
    return model.eval()


def _explicit(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return dict(model.named_parameters()), dict(model.named_buffers())


def test_it_holds_the_very_same_tensors_under_the_same_names() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LSTM(6, 5))
    model = functionalize(module)
    assert list(model.state_dict()) == list(module.state_dict())
    for (name, one), (other_name, other) in zip(
        module.named_parameters(), model.named_parameters(), strict=True
    ):
        assert name == other_name
        assert one is other


def test_the_modes_of_single_layers_are_kept() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    module[1].eval()
    model = functionalize(module)
    assert (model.training, model.get_submodule("0").training) == (True, True)
    assert not model.get_submodule("1").training


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Doubled(), "^Doubled is not in the catalogue"),
        (nn.Sequential(nn.ReLU(), nn.Sequential(Doubled())), "^1.0: Doubled is not in"),
        (nn.Sequential(nn.LazyLinear(3)), "^0: LazyLinear knows its sizes only after"),
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2))), "^0: ParametrizedLinear"),
    ],
    ids=["root", "nested", "lazy", "parametrized"],
)
def test_what_it_does_not_know_it_refuses_by_name(module: nn.Module, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        functionalize(module)


def test_hooks_and_replaced_forwards_are_refused_rather_than_lost() -> None:
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(NetworkError, match="0: Linear has hooks"):
        functionalize(hooked)
    replaced = nn.Sequential(nn.Linear(2, 2))
    replaced[0].forward = torch.relu
    with pytest.raises(NetworkError, match="0: Linear has a forward of its own"):
        functionalize(replaced)


def test_a_lazy_layer_converts_once_it_has_sizes() -> None:
    module = nn.Sequential(
        nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2)
    )
    images = torch.randn(2, 1, 6, 6)
    module(images)
    assert torch.equal(functionalize(module.eval())(images), module(images))


@pytest.mark.parametrize("nested", [False, True], ids=["root", "nested"])
def test_what_it_does_not_know_it_carries_when_asked(nested: bool) -> None:
    module = nn.Sequential(nn.Linear(3, 3), Doubled()) if nested else Doubled()
    expected = copy.deepcopy(module)
    model = functionalize(module, carry=True)
    assert list(model.state_dict()) == list(expected.state_dict())
    rows = torch.randn(4, 3)
    for candidate in (expected, model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        candidate.zero_grad()
        candidate(rows).square().sum().backward()
        for one, other in zip(expected.parameters(), candidate.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)
    parameters, buffers = _explicit(model)
    doubled = {name: value * 2 for name, value in parameters.items()}
    buffers = {name: value + 1 for name, value in buffers.items()}
    given = model.apply_with(doubled, buffers, rows)
    assert torch.equal(given, functional_call(expected, {**doubled, **buffers}, rows))


@pytest.mark.parametrize("parametrize", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrized_layers_are_carried(parametrize: Any) -> None:
    module = nn.Sequential(parametrize(nn.Linear(3, 3)), nn.ReLU())
    rows = torch.randn(4, 3)
    assert torch.equal(functionalize(module, carry=True)(rows), module(rows))


def test_shared_layers_and_tied_weights_stay_shared() -> None:
    linear, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = linear.weight
    module = nn.Sequential(linear, nn.ReLU(), linear, other)
    model = functionalize(module)
    rows = torch.randn(2, 3)
    assert torch.equal(model(rows), module(rows))
    assert list(model.state_dict()) == list(module.state_dict())
    parameters, buffers = _explicit(model)
    assert list(parameters) == ["0.weight", "0.bias", "3.bias"]
    assert torch.equal(model.apply_with(parameters, buffers, rows), module(rows))
    assert len(list(copy.deepcopy(model).parameters())) == 3


def test_a_parameter_that_is_not_given_is_named(convnet: FunctionalModel) -> None:
    parameters, buffers = _explicit(convnet)
    del parameters["conv2d_1.bias"]
    with pytest.raises(NetworkError, match=r"conv2d_1\.bias is not among"):
        convnet.apply_with(parameters, buffers, torch.randn(2, 1, 8, 8))


def test_arguments_are_taken_by_position_and_by_name() -> None:
    loss = functionalize(nn.PoissonNLLLoss())
    rates, counts = torch.randn(3), torch.rand(3)
    assert torch.equal(loss(rates, counts), loss(target=counts, log_input=rates))
    with pytest.raises(TypeError):
        functionalize(nn.ReLU())(rates, inplace=True)


def test_copies_and_pickles_have_tensors_of_their_own(convnet: FunctionalModel) -> None:
    images = torch.randn(2, 1, 8, 8)
    expected = convnet(images)
    for other in (copy.deepcopy(convnet), pickle.loads(pickle.dumps(convnet))):
        assert torch.equal(other(images), expected)
        with torch.no_grad():
            next(other.parameters()).zero_()
        assert not torch.equal(other(images), expected)
    assert torch.equal(convnet(images), expected)


def test_new_tensors_in_place_of_old_are_used(convnet: FunctionalModel) -> None:
    images = torch.randn(2, 1, 8, 8)
    expected = copy.deepcopy(convnet).double()(images.double())
    assert torch.equal(convnet.double()(images.double()), expected)
    state = {name: torch.zeros_like(value) for name, value in convnet.state_dict().items()}
    convnet.load_state_dict(state, assign=True)
    assert not convnet(images.double()).any()


def _note(names: list[str], name: str, output: object) -> None:
    names.append(name)


def test_every_layer_of_a_transformer_is_observed() -> None:
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model = functionalize(copy.deepcopy(module))
    seen: list[list[str]] = []
    rows = torch.randn(2, 5, 8)
    for candidate in (module, model):
        names: list[str] = []
        seen.append(names)
        with (
            torch.no_grad(),
            observe_outputs(candidate, partial(_note, names)),
        ):
            candidate(rows)
    assert seen[0] == seen[1] != []


def test_per_sample_gradients_in_one_call_match_a_loop(convnet: FunctionalModel) -> None:
    """What each image by itself would do to the weights."""
    images, labels = torch.randn(6, 1, 8, 8), torch.randint(0, 5, (6,))
    parameters, buffers = _explicit(convnet)

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        scores = convnet.apply_with(parameters, buffers, image[None])
        return F.cross_entropy(scores, label[None])

    together = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)
    for i in range(len(images)):
        convnet.zero_grad()
        F.cross_entropy(convnet(images[i : i + 1]), labels[i : i + 1]).backward()
        for name, parameter in convnet.named_parameters():
            torch.testing.assert_close(together[name][i], parameter.grad)


def test_jacobians_go_through_explicit_parameters(convnet: FunctionalModel) -> None:
    images = torch.randn(2, 1, 8, 8)
    parameters, buffers = _explicit(convnet)
    jacobian = jacrev(convnet.apply_with)(parameters, buffers, images)
    assert jacobian["linear_1.weight"].shape == (2, 5, *parameters["linear_1.weight"].shape)
    by_hand = torch.autograd.grad(convnet(images)[1, 3], convnet.get_parameter("conv2d_1.weight"))
    torch.testing.assert_close(jacobian["conv2d_1.weight"][1, 3], by_hand[0])


def test_models_of_different_weights_run_as_one(convnet: FunctionalModel) -> None:
    """An ensemble: the weights stacked, one call."""
    images = torch.randn(3, 1, 8, 8)
    members = [copy.deepcopy(convnet) for _ in range(2)]
    with torch.no_grad():
        members[1].get_parameter("conv2d_1.weight").mul_(2)
    stacked = torch.func.stack_module_state(members)
    together = vmap(convnet.apply_with, in_dims=(0, 0, None))(*stacked, images)
    for scores, member in zip(together, members, strict=True):
        torch.testing.assert_close(scores, member(images))
