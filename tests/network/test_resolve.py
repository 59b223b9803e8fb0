"""What a network's declaration means, and what a wrong one is answered with."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import convtrain
from convtrain.errors import NetworkError
from convtrain.network.expand import MAX_DEPTH, MAX_LAYERS
from convtrain.network.resolve import ResolvedLayer, resolve_network

SHAPE = (3, 8, 8)
CONV = {"Conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}
HALVE = {"Conv2d": {"out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 1}}


def names(*layers: Any, **blocks: Any) -> list[str]:
    return [leaf.path for leaf in leaves(*layers, **blocks)]


def leaves(*layers: Any, **blocks: Any) -> list[ResolvedLayer]:
    resolved = resolve_network(layers, SHAPE, blocks).layers
    return [leaf for layer in resolved for leaf in layer.leaves()]


# --- the language ---------------------------------------------------------------------------------


def test_a_repetition_stands_for_its_layers_written_out() -> None:
    repeated = {"Repeat": {"times": 2, "layers": [CONV, "ReLU"]}}
    assert names(CONV, repeated) == ["conv2d_1", "conv2d_2", "relu_1", "conv2d_3", "relu_2"]


def test_a_list_stands_for_a_sequential() -> None:
    assert names(["ReLU", CONV]) == names({"Sequential": ["ReLU", CONV]})


def test_a_block_is_a_stage_of_its_own_name() -> None:
    block = {
        "takes": {"width": "required"},
        "layers": [{"Conv2d": {"out_channels": "$width", "kernel_size": 1}}],
    }
    layers = [{"wide": {"width": 5}}, {"wide": {"width": 7}, "name": "last"}]
    found = leaves(*layers, wide=block)
    assert [leaf.path for leaf in found] == ["wide_1.conv2d_1", "last.conv2d_1"]
    assert [leaf.output_shape[0] for leaf in found] == [5, 7]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("$width", 4),
        ("$width * 2", 8),
        ("2 * ($width + 1)", 10),
        ("$width // 3", 1),
        ("-$width + 10", 6),
        ("$out", 8),
    ],
)
def test_a_value_is_a_parameter_or_arithmetic_of_them(declared: str, expected: int) -> None:
    block = {
        "takes": {"width": 4, "out": "$width * 2"},
        "layers": [{"Conv2d": {"out_channels": declared, "kernel_size": 1}}],
    }
    assert leaves("b", b=block)[0].output_shape[0] == expected


def test_index_counts_the_innermost_repetition() -> None:
    inner = {"Repeat": {"times": 2, "layers": [{"Dropout": {"p": "$index / 10"}}]}}
    found = leaves({"Repeat": {"times": 2, "layers": [{"Dropout": {"p": "$index / 2"}}, inner]}})
    assert [leaf.arguments["p"] for leaf in found] == [0, 0, 0.1, 0.5, 0, 0.1]


def test_a_block_takes_lists_of_layers() -> None:
    block = {
        "takes": {"shortcut": []},
        "layers": [{"Residual": {"body": [HALVE], "shortcut": "$shortcut"}}],
    }
    assert names({"b": {"shortcut": [HALVE]}}, b=block)[1] == "b_1.residual_1.shortcut.conv2d_1"


def test_a_block_may_use_blocks_and_speaks_of_its_own_parameters_alone() -> None:
    inner = {"takes": {"p": "required"}, "layers": [{"Dropout": {"p": "$p"}}]}
    outer = {"takes": {"p": "required"}, "layers": [{"inner": {"p": "$p / 2"}}]}
    (leaf,) = leaves({"outer": {"p": 0.5}}, inner=inner, outer=outer)
    assert (leaf.path, leaf.arguments["p"]) == ("outer_1.inner_1.dropout_1", 0.25)


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize(
    ("layer", "function"),
    [
        ({"Residual": ["ReLU"]}, lambda x: x.relu() + x),
        ({"Gate": ["Sigmoid"]}, lambda x: x.sigmoid() * x),
        ({"Concat": ["Identity", ["ReLU", "Tanh"]]}, lambda x: torch.cat([x, x.relu().tanh()], 1)),
        ({"Concat": {"layers": ["ReLU"] * 2, "dim": 2}}, lambda x: torch.cat([x.relu()] * 2, 2)),
        ({"Sum": ["Identity", "ReLU", "Tanh"]}, lambda x: x + x.relu() + x.tanh()),
        ({"Permute": {"dims": [0, 2, 3, 1]}}, lambda x: x.movedim(1, 3)),
        ({"LayerScale": {"value": 0.5}}, lambda x: x / 2),
        (
            {"Dense": ["ReLU", "Tanh"]},
            lambda x: torch.cat([x, x.relu(), torch.cat([x, x.relu()], 1).tanh()], 1),
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)  # fmt: skip
def test_a_block_computes_its_formula(style: Any, layer: Any, function: Any) -> None:
    images = torch.randn(2, *SHAPE)
    model = convtrain.build_model([layer], SHAPE, style=style)
    assert torch.equal(model(images), function(images))


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean(mode: str) -> None:
    ones = torch.ones(4000 if mode == "row" else 1, *SHAPE)
    drawn = []
    for style in ("nn", "functional"):
        layer = {"StochasticDepth": {"p": 0.25, "mode": mode}}
        model = convtrain.build_model([layer], SHAPE, style=style)
        torch.manual_seed(0)
        drawn.append(torch.cat([model(ones) for _ in range(1 if mode == "row" else 1000)]))
        assert torch.equal(model.eval()(ones), ones)
    assert torch.equal(*drawn)
    rows = drawn[0].flatten(1)
    assert torch.equal(rows.amin(1), rows.amax(1))
    assert set(rows[:, 0].tolist()) == {0.0, rows.max().item()}
    assert rows.mean().item() == pytest.approx(1, abs=0.05)


def test_each_layer_is_computed_once_however_deep_it_lies() -> None:
    layer: Any = CONV
    for _ in range(12):
        layer = {"Residual": [layer]}
    started = time.process_time()
    assert len(leaves(layer)) == 1
    assert time.process_time() - started < 0.5


# --- mistakes -------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    layer: Any = "ReLU"
    for _ in range(depth):
        layer = [layer]
    return layer


def bomb(levels: int) -> Any:
    """Return 9 ** levels layers as anchors make them: each list holds one list nine times."""
    layers: Any = ["ReLU"] * 9
    for _ in range(levels):
        layers = [layers] * 9
    return layers


def circle() -> Any:
    layers: list[Any] = ["ReLU"]
    layers.append(layers)
    return layers


WRITTEN = yaml.safe_load((Path(__file__).parent / "mistakes.yaml").read_text())
BLOCK = {"takes": {"width": "required"}, "layers": ["ReLU"]}
AGAIN = {"Repeat": {"times": 10**9, "layers": ["ReLU"]}}
MANY = f"{MAX_LAYERS:,} layers"
DEEP = f"more than {MAX_DEPTH} deep"
EXPLOSIONS: dict[str, tuple[Any, Any, str]] = {
    "repeat too often": ([AGAIN], {}, MANY),
    "repeat nothing too often": (
        [{"Repeat": {"times": 10**9, "layers": [{"Repeat": {"times": 0, "layers": ["ReLU"]}}]}}],
        {},
        MANY,
    ),
    "anchor bomb of layers": (bomb(12), {}, MANY),
    "anchor bomb of values": ([{"AdaptiveAvgPool2d": {"output_size": bomb(12)}}], {}, "values"),
    "anchor bomb in a block": ([{"b": {"width": bomb(12)}}], {"b": BLOCK}, "b_1 (b): expanded"),
    "layers too deep": ([nested(MAX_DEPTH + 2)], {}, DEEP),
    "list inside itself": (circle(), {}, DEEP),
    "value inside itself": ([{"AdaptiveAvgPool2d": {"output_size": circle()}}], {}, DEEP),
}
MISTAKES = {
    **{name: (m["layers"], m.get("blocks", {}), m["says"]) for name, m in WRITTEN.items()},
    **{name: (layers, blocks, [says]) for name, (layers, blocks, says) in EXPLOSIONS.items()},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_one_line(mistake: str) -> None:
    layers, blocks, expected = MISTAKES[mistake]
    started = time.process_time()
    with pytest.raises(NetworkError) as raised:
        convtrain.build_model(layers, SHAPE, blocks=blocks)
    message = str(raised.value)
    assert message.count("\n") == 0
    assert len(message) < 1000, message
    for part in expected:
        assert part in message, message
    assert time.process_time() - started < 2


ROWS = ({"Permute": {"dims": [0, 2, 1, 3]}}, {"Flatten": {"start_dim": 2}})  # rows follow in time
LAST_STEP = ({"Pick": {"index": 0}}, {"Select": {"dim": 1, "index": -1}})
LAST_LAYER = ({"Pick": {"index": [1, 0]}}, {"Select": {"dim": 0, "index": -1}})


@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize(
    ("layer", "pick", "oracle"),
    [
        ({"LSTM": {"hidden_size": 5}}, LAST_STEP, lambda made: made[0][:, -1]),
        (
            {"LSTM": {"hidden_size": 5, "proj_size": 3, "num_layers": 2}},
            LAST_LAYER,
            lambda made: made[1][0][1],
        ),
        ({"GRU": {"hidden_size": 5, "bidirectional": True}}, LAST_STEP, lambda made: made[0][:, 7]),
        ({"RNN": {"hidden_size": 5, "nonlinearity": "relu"}}, LAST_STEP, lambda m: m[0][:, 7]),
    ],
    ids=["LSTM", "LSTM's state", "GRU", "RNN"],
)  # fmt: skip
def test_a_recurrent_layer_reads_an_image_row_by_row(
    style: Any, layer: Any, pick: Any, oracle: Any
) -> None:
    ((name, arguments),) = layer.items()
    torch.manual_seed(0)
    model = convtrain.build_model([*ROWS, layer, *pick, "Tanh"], SHAPE, style=style)
    torch.manual_seed(0)
    peer = getattr(torch.nn, name)(24, batch_first=True, **arguments)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, peer)]
    for _ in range(3):
        images = torch.randn(4, *SHAPE)
        outputs = model(images), oracle(peer(images.transpose(1, 2).flatten(2))).tanh()
        assert torch.equal(*outputs)
        for output, optimizer in zip(outputs, optimizers, strict=True):
            optimizer.zero_grad()
            output.square().sum().backward()
            optimizer.step()
    for mine, theirs in zip(model.parameters(), peer.parameters(), strict=True):
        assert torch.equal(mine, theirs)
