"""Networks declared in YAML alone are torchvision's: the same parameters, and the same bits."""

import time

import pytest
import torch
import torchvision

from convtrain.network.resolve import resolve_network
from convtrain.run.commands import CONFIGS
from docs.generate.networks import PAGE, costs, known_parameters, page, row
from tests.conftest import slow_but
from tests.network.known import (
    NETWORKS,
    SHAPE,
    STYLES,
    built,
    declared,
    differences,
    in_declared_order,
    known,
    pairs,
    shape,
)

LARGE = ("vgg16_bn",)  # 138 million parameters
QUICK = ("lenet", "resnet18", "mobilenet_v2", "googlenet")
OF_TORCHVISION = NETWORKS[1:]


@pytest.mark.parametrize("name", slow_but(NETWORKS, *QUICK))
def test_the_declared_network_computes_the_same_bits(name: str) -> None:
    found = differences(name)
    assert len(found) == 4
    for (style, mode), difference in found.items():
        assert difference.largest == 0, (style, mode, difference)


@pytest.mark.parametrize("name", slow_but(NETWORKS, *QUICK))
def test_the_declared_network_has_exactly_the_known_parameters(name: str) -> None:
    parameters, _ = costs(name)
    assert parameters == known_parameters(name)
    if name == "lenet":
        assert parameters == 61_706


@pytest.mark.parametrize("name", slow_but(OF_TORCHVISION, *QUICK))
def test_multiply_adds_are_those_that_torchvision_publishes(name: str) -> None:
    weights = next(iter(torchvision.models.get_model_weights(name)))
    _, multiply_adds = costs(name)
    assert round(multiply_adds / 1e9, 3) == pytest.approx(weights.meta["_ops"], abs=0.0011)


@pytest.mark.parametrize(
    "name", slow_but((n for n in OF_TORCHVISION if n not in ("alexnet", *LARGE)), *QUICK)
)
def test_initial_weights_are_drawn_as_torchvision_draws_them(name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = known(name), built(name)
    for key, a, _, b in pairs(name, theirs, ours):
        if a.float().std(correction=0) == 0:
            assert torch.equal(a, b), key
        elif a.numel() >= 2000:
            assert b.std().item() == pytest.approx(a.std().item(), rel=0.1), key
            assert b.mean().item() == pytest.approx(0, abs=a.std().item() / 5), key


@pytest.mark.parametrize("name", slow_but(NETWORKS, *QUICK))
def test_resolving_takes_no_time_to_speak_of(name: str) -> None:
    network = declared(name)
    started = time.process_time()
    resolve_network(network.layers, shape(name), network.blocks)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("name", NETWORKS)
def test_repetition_is_declared_and_not_copied(name: str) -> None:
    assert len((CONFIGS / "network" / f"{name}.yaml").read_text().splitlines()) < 80


def test_the_comparison_sees_a_small_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch norm of 62 with another epsilon, and every kind of number differs."""
    import tests.network.known

    def with_a_mistake(name: str) -> torch.nn.Module:
        model = known(name)
        model.get_submodule("layer3.1.bn2").eps = 2e-5  # type: ignore[assignment]
        return model

    monkeypatch.setattr(tests.network.known, "known", with_a_mistake)
    for difference in differences("resnet18").values():
        assert difference.scores > 0
        assert difference.gradients > 0


def test_layer_scale_moves_behind_its_block_and_nothing_else_does() -> None:
    zero = torch.zeros(())
    keys = ["0.weight", "1.layer_scale", "1.block.a", "1.block.b", "2.layer_scale", "2.block.a"]
    ordered = list(in_declared_order("convnext_tiny", dict.fromkeys(keys, zero)))
    assert ordered == [*keys[:1], *keys[2:4], "1.layer_scale", "2.block.a", "2.layer_scale"]


@pytest.mark.slow
def test_the_page_shows_what_is_declared() -> None:
    lines = PAGE.read_text().splitlines()
    for name in NETWORKS:
        start = f"| {' | '.join(row(name))} |"
        assert any(line.startswith(start) for line in lines), (
            f"{name}: write the page with python -m docs.generate networks"
        )


@pytest.mark.slow
def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page()


def test_every_style_is_compared() -> None:
    assert {style for style, _ in differences("lenet")} == set(STYLES)
    assert SHAPE[0] == 3
