"""A resolved network in numbers: each layer's output, parameters and multiply-adds."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from convtrain.layers.blocks import Pick
from convtrain.network.resolve import Layer, Network


@dataclass(frozen=True)
class Row:
    """What one layer costs for one example.

    Attributes:
        path: its name from the network's root, with dots; ``kind`` is its class.
        output_shape: without the batch dimension.
        parameters: numbers that are learned.
        multiply_adds: of convolutions and matrix products; what other layers do is not counted.
    """

    path: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def summarize(network: Network) -> list[Row]:
    """Return a row for each layer that computes by itself, in the order of the declaration."""
    return [_row(leaf) for layer in network.layers for leaf in layer.leaves()]


def totals(rows: list[Row]) -> tuple[int, int]:
    """Return all parameters and all multiply-adds."""
    return sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)


def _row(layer: Layer) -> Row:
    with torch.device("meta"), torch.no_grad():
        module = layer.make().eval()
        counter = FlopCounterMode(display=False)
        if not isinstance(module, Pick):  # it computes nothing, and takes more than one tensor
            with counter:
                module(torch.empty(1, *layer.input_shape))
    return Row(
        path=layer.path,
        kind=layer.entry.module.__name__,
        output_shape=layer.output_shape,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        multiply_adds=counter.get_total_flops() // 2,  # a multiplication and an addition are two
    )
