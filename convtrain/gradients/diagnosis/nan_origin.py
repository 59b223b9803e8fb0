"""Find the layer in which the first non-finite value arises, forward or backward.

Each node of the autograd graph belongs to the layer whose call created it. In the backward pass,
the origin is the first node that receives finite gradients and returns non-finite ones.
"""

from torch import Tensor
from torch.autograd.graph import Node

from convtrain.gradients.record.capture import floating_tensors
from convtrain.gradients.record.statistics import is_finite

Call = tuple[str, int]  # a layer's name, and the index of its call in one forward pass

MODEL, LOSS = ("", 0), ("loss", 0)


class NanOrigin:
    """Observes one forward and backward pass."""

    def __init__(self, images: Tensor) -> None:
        self._open = [MODEL]
        self._calls: dict[str, int] = {}
        self._owner: dict[Node, Call] = {}
        self._found: tuple[str, Call] | None = None
        self._check("input", images, MODEL)

    @property
    def where(self) -> str:
        """The origin in words, such as ``forward pass of relu_2``; empty if all was finite."""
        if self._found is None:
            return ""
        how, (layer, call) = self._found
        if not layer:
            return how.format("the model's own code")
        return how.format(f"{layer}#{call}" if self._calls.get(layer, 0) > 1 else layer)

    def enter_layer(self, layer: str, inputs: object) -> None:
        self._own(inputs, self._open[-1])
        self._check("forward pass of {}", inputs, self._open[-1])
        call = self._calls.get(layer, 0)
        self._calls[layer] = call + 1
        self._open.append((layer, call))

    def leave_layer(self, layer: str, output: object) -> None:
        call = self._open.pop()
        self._own(output, call)
        self._check("forward pass of {}", output, call)

    def enter_loss(self, logits: Tensor, loss: Tensor) -> None:
        """Observe the backward pass that begins at ``loss``."""
        self._own(logits, MODEL)
        self._check("forward pass of {}", logits, MODEL)
        self._check("{}", loss, LOSS)
        self._own(loss, LOSS)
        for node, call in self._owner.items():
            node.register_hook(lambda left, came, call=call: self._pass_node(call, came, left))

    def _pass_node(self, call: Call, came: object, left: object) -> None:
        # Every node before this one returned finite gradients, so their sum is the origin.
        self._check("sum of the gradients that come back to {}", came, call)
        self._check("backward pass of {}", left, call)

    def _check(self, how: str, values: object, call: Call) -> None:
        if self._found is None and not all(map(is_finite, floating_tensors(values))):
            self._found = how, call

    def _own(self, values: object, call: Call) -> None:
        nodes = [t.grad_fn for t in floating_tensors(values) if t.grad_fn is not None]
        while nodes:
            node = nodes.pop()
            if node not in self._owner:
                self._owner[node] = call
                nodes += [before for before, _ in node.next_functions if before is not None]
