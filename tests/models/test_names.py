"""Every name that a user may give a layer: it works in both styles alike, or is refused alike."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from convtrain import build_model
from convtrain.errors import NetworkError
from convtrain.layers.blocks import Concat, Dense, Gate, Residual, Sum
from convtrain.models.functional import FunctionalModel
from convtrain.models.observe import observe_outputs

Place = Callable[[Any], list[Any]]

HOLDERS = (
    nn.Sequential(),
    FunctionalModel(nn.Sequential()),
    *(kind(nn.Sequential()) for kind in (Concat, Dense, Sum, Residual, Gate)),
)
ARGUMENTS = ("input", "layers", "observed", "weight", "bias", "stride", "p", "mode", "index")
NAMES = sorted({name for holder in HOLDERS for name in dir(holder) if name.isidentifier()})
PLACES: dict[str, Place] = {
    "network": lambda layer: [layer],
    "Sequential": lambda layer: [[layer]],
    "Residual": lambda layer: [{"Residual": {"body": [layer], "shortcut": [layer]}}],
    "Gate": lambda layer: [{"Gate": [layer]}],
    "Concat": lambda layer: [{"Concat": ["Identity", layer]}],
    "Sum": lambda layer: [{"Sum": [layer, "Identity"]}],
    "Dense": lambda layer: [{"Dense": [layer, "Identity"]}],
}


def outcome(declared: list[Any], style: Any) -> Any:
    """Return what a network comes to: its keys, output, gradients and layers, or the refusal."""
    torch.manual_seed(0)
    try:
        model = build_model(declared, (2, 3, 3), style=style)
    except NetworkError as error:
        return str(error)
    images, seen = torch.arange(36.0).reshape(2, 2, 3, 3), list[str]()
    with observe_outputs(model, lambda name, _: seen.append(name)):
        output = model(images)
    output.sum().backward()
    gradients = [parameter.grad.tolist() for parameter in model.parameters()]
    clone = copy.deepcopy(model)
    clone.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(clone(images), output)
    for name, module in model.named_modules():
        assert model.get_submodule(name) is module
    return list(model.state_dict()), output.tolist(), gradients, sorted(set(seen))


@pytest.mark.parametrize("place", PLACES)
def test_a_name_works_in_both_styles_or_in_neither(place: str) -> None:
    refused = set()
    for name in (*NAMES, *ARGUMENTS):
        layer = {"Conv2d": {"out_channels": 2, "kernel_size": 1}, "name": name}
        tree, explicit = (outcome(PLACES[place](layer), style) for style in ("nn", "functional"))
        assert tree == explicit, name
        if isinstance(tree, str):
            refused.add(name)
            assert f"{name} (Conv2d): name={name} is an attribute of " in tree
    assert {"forward", "training", "type", "append", "children"} <= refused
    assert not refused & {*ARGUMENTS, "sparse", "body", "shortcut"}
    assert ("dim" in refused) == (place in ("Concat", "Dense"))
    assert ("apply_with" in refused) == (place == "network")


def test_a_summary_refuses_what_cannot_be_built(capsys: pytest.CaptureFixture[str]) -> None:
    from convtrain.__main__ import main

    assert main(["summary", "network.layers=[{Flatten: {}, name: forward}]"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "network.layers: forward (Flatten): name=forward is an attribute of Sequential, which "
        "holds the layer; give it another name, such as forward_layer"
    )
