"""``trainer.deterministic=true`` on a GPU: what has no deterministic backward pass is refused."""

from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convtrain
from convtrain import assembly
from convtrain.errors import NetworkError
from convtrain.models.determinism import SUBSTITUTES, _pool_backward, refuse_nondeterministic
from tests.conftest import REPOSITORY, compose
from tests.layers.cases import CASES

REFUSED = {
    "adaptive average": ([{"AdaptiveAvgPool2d": {"output_size": 2}}], "AdaptiveAvgPool2d"),
    "one side of it": ([{"AdaptiveAvgPool2d": {"output_size": [1, 2]}}], "AdaptiveAvgPool2d"),
    "in a block": (
        [{"Residual": {"body": [{"name": "lrn", "LocalResponseNorm": {"size": 2}}]}}],
        "LocalResponseNorm",
    ),
    "reflection, one side": (["Flatten", {"ReflectionPad1d": {"padding": 1}}], "ReflectionPad1d"),
    "bicubic": ([{"Upsample": {"scale_factor": 2, "mode": "bicubic"}}], "Upsample"),
}
ALLOWED = (
    [{"AdaptiveAvgPool2d": {"output_size": 1}}],
    [{"AdaptiveMaxPool2d": {"output_size": 3}}],
    [{"MaxPool2d": {"kernel_size": 2}}],
    [{"ReflectionPad2d": {"padding": 1}}],
    [{"Upsample": {"scale_factor": 2, "mode": "bilinear"}}],
)


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize(("layers", "kind"), REFUSED.values(), ids=REFUSED.keys())
def test_a_layer_is_refused_by_name_with_a_substitute(layers: list, kind: str, style: str) -> None:
    model = convtrain.build_model(layers, (2, 8, 8), style=style)  # type: ignore[arg-type]
    with pytest.raises(NetworkError) as refused:
        refuse_nondeterministic(model)
    (line,) = refused.value.lines
    assert line.startswith("trainer.deterministic=true: ")
    named = [name for name, module in model.named_modules() if name]
    assert line.split()[1] in named
    assert f"is {kind}, which has no deterministic backward pass on a GPU; declare " in line
    assert "trainer.deterministic=false" in line


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize("layers", ALLOWED, ids=str)
def test_what_torch_can_do_in_order_is_allowed(layers: list, style: str) -> None:
    refuse_nondeterministic(convtrain.build_model(layers, (2, 8, 8), style=style))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SUBSTITUTES, ids=lambda kind: kind.__name__)
def test_every_condition_can_read_its_layer(kind: type[nn.Module]) -> None:
    """A condition that asked for a setting which the layer does not have would end the run."""
    for case in filter(lambda case: case.is_known_to(kind), CASES[kind]):
        with suppress(NetworkError):
            refuse_nondeterministic(case.make(kind))


def test_the_run_is_refused_before_it_begins_where_the_device_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = compose(
        "trainer.deterministic=true", "network=alexnet", "data=synthetic", "data.shape=[3,64,64]"
    )
    assembly.make_model(config)
    monkeypatch.setattr(assembly, "kind_of_device", lambda accelerator: "gpu")
    with pytest.raises(NetworkError, match=r"trainer\.deterministic=true: .*AdaptiveAvgPool2d"):
        assembly.make_model(config)
    assembly.make_model(compose("trainer.deterministic=true"))  # the default network


@pytest.mark.parametrize(
    ("size", "output"), [((8, 8), 3), ((2, 2), 3), ((7, 5), (3, 2)), ((6, 6), 1)], ids=str
)
def test_each_maximum_gets_its_gradient_back(size: tuple[int, int], output: Any) -> None:
    for shape in ((2, 3, *size), (3, *size)):
        images = torch.randn(shape, requires_grad=True)
        pooled, indices = F.adaptive_max_pool2d(images, output, return_indices=True)
        gradient = torch.randn_like(pooled)
        (expected,) = torch.autograd.grad(pooled, images, gradient)
        torch.testing.assert_close(_pool_backward(gradient, images, indices), expected)


def test_the_page_lists_every_layer_with_its_substitute() -> None:
    page = (REPOSITORY / "docs" / "devices.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    listed = [(row[0], row[2]) for row in rows if len(row) == 3 and row[0] in KNOWN]
    assert listed == [(kind.__name__, substitute) for kind, (_, substitute) in SUBSTITUTES.items()]


KNOWN = {kind.__name__ for kind in CASES}
