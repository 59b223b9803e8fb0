"""Where the first value that is not finite comes from, forward or backward.

Each node of the autograd graph belongs to the layer in whose call it was made. In the backward pass
the first node that turns finite gradients into others is the origin, whatever ran before it.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from convtrain.gradients.record.statistics import is_finite

Call = tuple[str, int]  # a layer, and which of its calls in one forward pass

MODEL, LOSS = ("", 0), ("loss", 0)


class NanOrigin:
    """Follows one forward and backward pass: ``layer_begins``, ``layer_ends``, ``follow_loss``."""

    def __init__(self) -> None:
        self._open = [MODEL]
        self._calls: dict[str, int] = {}
        self._owner: dict[Any, Call] = {}
        self._found: tuple[str, Call] | None = None

    @property
    def where(self) -> str:
        """In words, such as ``forward pass of relu_2``; empty where all was finite."""
        if self._found is None:
            return ""
        how, (layer, call) = self._found
        if not layer:
            return how.format("the model's own code")
        return how.format(f"{layer}#{call}" if self._calls.get(layer, 0) > 1 else layer)

    def look_at_input(self, images: Tensor) -> None:
        self._look("input", images, MODEL)

    def layer_begins(self, layer: str, inputs: Any) -> None:
        self._belong(inputs, self._open[-1])
        self._look("forward pass of {}", inputs, self._open[-1])
        call = self._calls.get(layer, 0)
        self._calls[layer] = call + 1
        self._open.append((layer, call))

    def layer_ends(self, layer: str, output: Any) -> None:
        call = self._open.pop()
        self._belong(output, call)
        self._look("forward pass of {}", output, call)

    def follow_loss(self, scores: Tensor, loss: Tensor) -> None:
        """Follow the backward pass that is about to begin at ``loss``."""
        self._belong(scores, MODEL)
        self._look("forward pass of {}", scores, MODEL)
        self._look("{}", loss, LOSS)
        self._belong(loss, LOSS)
        for node, call in self._owner.items():
            node.register_hook(
                lambda inputs, outputs, call=call: self._pass_node(call, outputs, inputs)
            )

    def _pass_node(self, call: Call, received: Any, handed_on: Any) -> None:
        # What is received and not finite though no node has handed it on was added up here.
        self._look("sum of the gradients that come back to {}", received, call)
        self._look("backward pass of {}", handed_on, call)

    def _look(self, how: str, values: Any, call: Call) -> None:
        if self._found is None and not all(is_finite(tensor) for tensor in _floating(values)):
            self._found = how, call

    def _belong(self, values: Any, call: Call) -> None:
        """Give the nodes that led to these tensors, and that belong to no call yet, to one."""
        nodes = [t.grad_fn for t in _floating(values) if t.grad_fn is not None]
        while nodes:
            node = nodes.pop()
            if node not in self._owner:
                self._owner[node] = call
                nodes += [before for before, _ in node.next_functions if before is not None]


def _floating(values: Any) -> Iterator[Tensor]:
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
            yield leaf
