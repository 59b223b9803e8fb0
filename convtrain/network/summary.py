"""The cost of each layer of a resolved network: output, parameters and multiply-adds."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from convtrain.layers.blocks import Pick
from convtrain.network.own import on_meta_or_cpu
from convtrain.network.resolve import ResolvedLayer, ResolvedNetwork


class LayerCost(NamedTuple):
    """The cost of one layer for one example."""

    path: str  # its name from the network's root, with dots
    kind: str  # its class
    output_shape: tuple[int, ...]  # without the batch dimension
    parameters: int
    multiply_adds: int  # of convolutions and matrix products only


def summarize(network: ResolvedNetwork) -> list[LayerCost]:
    """Return the cost of each layer without sublayers, in the order of the declaration."""
    return [_cost(leaf) for layer in network.layers for leaf in layer.leaves()]


def totals(costs: Sequence[LayerCost]) -> tuple[int, int]:
    """Return the sums of parameters and multiply-adds."""
    return sum(cost.parameters for cost in costs), sum(cost.multiply_adds for cost in costs)


def _cost(layer: ResolvedLayer) -> LayerCost:
    def compute(device: str) -> tuple[int, int]:
        with torch.device(device), torch.no_grad():
            module = layer.make().eval()
            counter = FlopCounterMode(display=False)
            if not isinstance(module, Pick):  # computes nothing, and takes several tensors
                with counter:
                    module(torch.zeros(1, *layer.input_shape))
        parameters = sum(parameter.numel() for parameter in module.parameters())
        return parameters, counter.get_total_flops() // 2  # FLOPs count a multiply-add as two

    parameters, multiply_adds = on_meta_or_cpu(layer.entry, compute)
    return LayerCost(layer.path, layer.entry.name, layer.output_shape, parameters, multiply_adds)
