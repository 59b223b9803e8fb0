"""What each layer of a resolved network costs: output, parameters and multiply-adds."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from convtrain.layers.blocks import Pick
from convtrain.network.resolve import ResolvedLayer, ResolvedNetwork


class LayerCost(NamedTuple):
    """What one layer costs for one example.

    Attributes:
        path: its name from the network's root, with dots; ``kind`` is its class.
        output_shape: without the batch dimension.
        parameters: the number of learned values.
        multiply_adds: of convolutions and matrix products; nothing else is counted.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def summarize(network: ResolvedNetwork) -> list[LayerCost]:
    """Return the cost of each layer that computes by itself, in the order of the declaration."""
    return [_cost(leaf) for layer in network.layers for leaf in layer.leaves()]


def totals(costs: Sequence[LayerCost]) -> tuple[int, int]:
    """Return all parameters and all multiply-adds."""
    return sum(cost.parameters for cost in costs), sum(cost.multiply_adds for cost in costs)


def _cost(layer: ResolvedLayer) -> LayerCost:
    with torch.device("meta"), torch.no_grad():
        module = layer.make().eval()
        counter = FlopCounterMode(display=False)
        if not isinstance(module, Pick):  # it computes nothing, and takes more than one tensor
            with counter:
                module(torch.empty(1, *layer.input_shape))
    return LayerCost(
        path=layer.path,
        kind=layer.entry.module.__name__,
        output_shape=layer.output_shape,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        multiply_adds=counter.get_total_flops() // 2,  # a multiplication and an addition are two
    )
