"""What passes through every layer, forward and backward: values, gradients, and the graph."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convtrain.gradients.record.statistics import describe
from convtrain.models.observe import observe_outputs

INPUT = "input"


@dataclass
class Seen:
    """A layer's output in one call of the layer."""

    layer: str
    values: Tensor
    gradient: Tensor | None = None
    grad_fn: str = "none"
    next_functions: tuple[str, ...] = ()


@dataclass
class LayerRecord:
    """What one pass left behind.

    Attributes:
        names: the layers in the order of their calls, ``input`` first; a layer that was called
            twice stands as ``relu#0`` and ``relu#1``, a second output as ``lstm[1]``.
        values: (L, 6), described by :func:`convtrain.gradients.record.statistics.describe`.
        gradients: (L, 6), of the loss with respect to the output; NaN where none came back.
        graph: by name, the output's grad_fn and the functions that come next on the way back.
    """

    names: list[str]
    values: Tensor
    gradients: Tensor
    graph: dict[str, list[str]] = field(default_factory=dict)


class Capture:
    """Watches one forward and backward pass.

    Values are described at the moment a layer returns them, because the next layer may overwrite
    them in place; gradients by a hook on the output itself, which an overwriting does not disturb.
    No hook stays behind, and nothing is changed in the pass but that the input's gradient is
    computed too.

    Args:
        model: in either style, or any module; a compiled one shows nothing.
        inputs: a batch, in which the first floating tensor is taken for the input.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        self.seconds = 0.0  # spent in describing
        self._seen: list[Seen] = []
        self._last: tuple[int, int] | None = None
        self._open = ExitStack()
        self._input = next(iter(_floating(inputs)), None)
        self._borrowed = self._input is not None and not self._input.requires_grad
        if self._input is not None:
            self._seen.append(Seen(INPUT, _describe(self._input)))
            if self._borrowed:
                self._input.requires_grad_(True)
        self._open.enter_context(observe_outputs(model, self._observe))

    @property
    def input_gradient(self) -> Tensor | None:
        return None if self._input is None else self._input.grad

    def _observe(self, layer: str, output: Any) -> None:
        start = time.perf_counter()
        for index, tensor in enumerate(_floating(output)):
            state = id(tensor), tensor._version
            if state == self._last:
                continue  # a container, which hands on what its last layer returned
            self._last = state
            seen = Seen(f"{layer}[{index}]" if index else layer, _describe(tensor))
            self._seen.append(seen)
            if tensor.grad_fn is not None:
                seen.grad_fn = type(tensor.grad_fn).__name__
                after = [function for function, _ in tensor.grad_fn.next_functions]
                seen.next_functions = tuple(type(f).__name__ for f in after if f)
                tensor.register_hook(lambda gradient, seen=seen: self._take(seen, gradient))
        self.seconds += time.perf_counter() - start

    def _take(self, seen: Seen, gradient: Tensor | None) -> None:
        if gradient is None:  # such as of an LSTM's last state, which nothing uses, on a GPU
            return
        start = time.perf_counter()
        seen.gradient = _describe(gradient)
        self.seconds += time.perf_counter() - start

    def stop(self) -> None:
        """Watch no further forward pass."""
        self._open.close()
        self._last = None

    def finish(self) -> LayerRecord | None:
        """Give the input back as it was, and return what was seen."""
        self.stop()
        if self._input is not None:
            if self._input.grad is not None:
                self._seen[0].gradient = _describe(self._input.grad)
            if self._borrowed:
                self._input.requires_grad_(False)
                self._input.grad = None
        if not self._seen:
            return None
        names = _numbered([seen.layer for seen in self._seen])
        nothing = torch.full_like(self._seen[0].values, torch.nan)
        gradients = [nothing if seen.gradient is None else seen.gradient for seen in self._seen]
        return LayerRecord(
            names=names,
            values=torch.stack([seen.values.float() for seen in self._seen]),
            gradients=torch.stack([gradient.float() for gradient in gradients]),
            graph={
                name: [seen.grad_fn, *seen.next_functions]
                for name, seen in zip(names, self._seen, strict=True)
                if seen.layer != INPUT
            },
        )


def _describe(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        return describe([tensor])[0]


def _floating(values: Any) -> Iterator[Tensor]:
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
            yield leaf


def _numbered(layers: list[str]) -> list[str]:
    """Tell the calls of a layer apart, where there are several."""
    calls: dict[str, int] = {}
    names = []
    for layer in layers:
        call = calls.get(layer, 0)
        calls[layer] = call + 1
        names.append(f"{layer}#{call}" if layers.count(layer) > 1 else layer)
    return names
