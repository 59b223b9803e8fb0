"""Observe every layer's output, its gradient, and the autograd graph in one pass."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convtrain.gradients.record.statistics import describe
from convtrain.models.observe import observe_outputs

INPUT = "input"


@dataclass
class Output:
    """One output of one call of a layer, described by its statistics."""

    layer: str
    values: Tensor
    gradient: Tensor | None = None
    grad_fns: list[str] = field(default_factory=lambda: ["none"])


@dataclass
class LayerRecord:
    """The outputs of all layers in one forward and backward pass.

    Attributes:
        names: (L), in the order of the calls, ``input`` first; two calls of a layer are ``relu#0``
            and ``relu#1``, a second output is ``lstm[1]``.
        values: (L, len(STATISTICS)), the statistics of the outputs.
        gradients: the same of the loss's gradients by the outputs; NaN without a gradient.
        graph: by name, the output's grad_fn and its next functions.
    """

    names: list[str]
    values: Tensor
    gradients: Tensor
    graph: dict[str, list[str]] = field(default_factory=dict)


class Capture:
    """Observes one forward and backward pass; the only change is that the input gets a gradient.

    It describes an output when the layer returns it, because the next layer may overwrite it in
    place, and a gradient in a hook on the tensor, which in-place operations do not disturb.

    Args:
        model: not compiled, since a compiled model's layers cannot be observed.
        batch: its first floating tensor is the input.

    Attributes:
        seconds: the time that describing took.
    """

    def __init__(self, model: nn.Module, batch: object) -> None:
        self.seconds = 0.0
        self._outputs: list[Output] = []
        self._last: tuple[Tensor | None, int] = None, 0  # kept alive, so its id is not reused
        self._input = next(iter(floating_tensors(batch)), None)
        self._requires_grad_for_now = self._input is not None and not self._input.requires_grad
        if self._input is not None:
            self._outputs.append(Output(INPUT, _describe(self._input)))
            if self._requires_grad_for_now:
                self._input.requires_grad_(True)
        self._hooks = ExitStack()
        self._hooks.enter_context(observe_outputs(model, self._observe))

    @property
    def input_gradient(self) -> Tensor | None:
        return None if self._input is None else self._input.grad

    def _observe(self, layer: str, output: object) -> None:
        start = time.perf_counter()
        for index, tensor in enumerate(floating_tensors(output)):
            last, version = self._last
            if tensor is last and tensor._version == version:
                continue  # a container returned its last layer's output
            self._last = tensor, tensor._version
            seen = Output(f"{layer}[{index}]" if index else layer, _describe(tensor))
            self._outputs.append(seen)
            if tensor.grad_fn is not None:
                following = [function for function, _ in tensor.grad_fn.next_functions]
                seen.grad_fns = [type(f).__name__ for f in (tensor.grad_fn, *following) if f]
                tensor.register_hook(lambda gradient, seen=seen: self._take(seen, gradient))
        self.seconds += time.perf_counter() - start

    def _take(self, seen: Output, gradient: Tensor | None) -> None:
        if gradient is None:  # e.g. an LSTM's unused last state on a GPU
            return
        start = time.perf_counter()
        seen.gradient = _describe(gradient)
        self.seconds += time.perf_counter() - start

    def finish(self) -> LayerRecord | None:
        """Remove the hooks, restore the input, and return what was observed."""
        self._hooks.close()
        self._last = None, 0
        if self._input is not None:
            if self._input.grad is not None:
                self._outputs[0].gradient = _describe(self._input.grad)
            if self._requires_grad_for_now:
                self._input.requires_grad_(False)
                self._input.grad = None
        if not self._outputs:
            return None
        names = _number_calls([seen.layer for seen in self._outputs])
        unknown = torch.full_like(self._outputs[0].values, torch.nan)
        gradients = [unknown if o.gradient is None else o.gradient for o in self._outputs]
        return LayerRecord(
            names=names,
            values=torch.stack([seen.values.float() for seen in self._outputs]),
            gradients=torch.stack([gradient.float() for gradient in gradients]),
            graph={
                name: seen.grad_fns
                for name, seen in zip(names, self._outputs, strict=True)
                if seen.layer != INPUT
            },
        )


def _describe(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        return describe([tensor])[0]


def floating_tensors(values: object) -> Iterator[Tensor]:
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
            yield leaf


def _number_calls(layers: list[str]) -> list[str]:
    calls: dict[str, int] = {}
    names = []
    for layer in layers:
        call = calls.get(layer, 0)
        calls[layer] = call + 1
        names.append(f"{layer}#{call}" if layers.count(layer) > 1 else layer)
    return names
