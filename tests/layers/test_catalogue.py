"""No class of torch.nn is forgotten, and every twin takes what its layer takes."""

import inspect

import pytest
import torch
from torch import nn
from torch.func import functional_call

from convtrain.layers import BY_CLASS, BY_NAME, FAMILIES
from convtrain.layers.containers import no_forward
from convtrain.layers.entry import Entry
from convtrain.layers.exceptions import EXCEPTIONS
from convtrain.network.resolve import resolve_network
from tests.layers.cases import CASES

TORCH_NN = sorted(
    name
    for name, value in vars(nn).items()
    if isinstance(value, type) and issubclass(value, nn.Module)
)
ENTRIES = [entry for family in FAMILIES.values() for entry in family]
FILLED_BY_NAME = {"training", "children", "parameters"}


@pytest.mark.parametrize("name", TORCH_NN)
def test_every_class_of_torch_nn_is_in_the_catalogue_or_has_a_reason_not_to_be(name: str) -> None:
    catalogued = getattr(nn, name) in BY_CLASS
    assert catalogued != (name in EXCEPTIONS), f"{name}: write its row, or its exception"


def test_exceptions_are_classes_of_torch_nn_each_with_a_reason() -> None:
    assert set(EXCEPTIONS) <= set(TORCH_NN)
    assert all(EXCEPTIONS.values())


def test_no_class_has_two_rows() -> None:
    assert len(ENTRIES) == len(BY_CLASS) == len(BY_NAME)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.module.__name__)
def test_every_layer_has_cases(entry: Entry) -> None:
    assert CASES.get(entry.module), f"{entry.module.__name__}: write cases in tests/layers/cases.py"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.module.__name__)
def test_a_twin_starts_with_its_layers_inputs(entry: Entry) -> None:
    if entry.twin in (no_forward, functional_call):
        return
    module = CASES[entry.module][0].make(entry.module)
    inputs = list(inspect.signature(entry.module.forward).parameters.values())[1:]
    taken = list(inspect.signature(entry.twin).parameters.values())[: len(inputs)]
    for theirs, ours in zip(inputs, taken, strict=True):
        assert not hasattr(module, ours.name), f"{ours.name} would be filled from the layer"
        assert ours.name not in FILLED_BY_NAME
        assert ours.default == theirs.default
        assert ours.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.module.__name__)
def test_inferred_arguments_are_arguments(entry: Entry) -> None:
    signatures = [inspect.signature(base) for base in entry.module.__mro__]
    known = {name for signature in signatures for name in signature.parameters}
    assert set(entry.infer) <= known


SHAPES = {
    "BatchNorm1d": (6, 9),
    "BatchNorm2d": (6, 9, 9),
    "BatchNorm3d": (6, 9, 9, 9),
    "Conv1d": (6, 9),
    "Conv3d": (6, 9, 9, 9),
    "ConvTranspose1d": (6, 9),
    "ConvTranspose3d": (6, 9, 9, 9),
    "InstanceNorm1d": (6, 9),
    "InstanceNorm3d": (6, 9, 9, 9),
    "TransformerEncoderLayer": (5, 6),
}
REQUIRED = {
    "Conv": {"out_channels": 4, "kernel_size": 3},
    "Linear": {"out_features": 4},
    "GroupNorm": {"num_groups": 2},
    "TransformerEncoderLayer": {"nhead": 2},
    "GRUCell": {"hidden_size": 4},
    "RNNCell": {"hidden_size": 4},
}
CHAINABLE = [
    name
    for name, entry in BY_NAME.items()
    if (
        entry.infer
        and len([p for p in inspect.signature(entry.module.forward).parameters if p != "self"]) == 1
    )
    or name in ("TransformerEncoderLayer", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
]


@pytest.mark.parametrize("name", CHAINABLE)
def test_sizes_that_follow_from_the_input_need_not_be_declared(name: str) -> None:
    needed = next((more for start, more in REQUIRED.items() if name.startswith(start)), {})
    network = resolve_network([{name: dict(needed)}], SHAPES.get(name, (6, 9, 9)))
    layer = network.layers[0]
    made = layer.make()
    assert made(torch.zeros(2, *network.input_shape)).shape[1:] == layer.output_shape
    assert set(layer.entry.infer) <= set(layer.arguments)
