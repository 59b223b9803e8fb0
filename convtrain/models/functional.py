"""The functional style: weights are explicit Parameters, a forward pass is a function of them.

``torch.nn.Conv2d`` hides its filter inside a module; here it lies open. The model holds nothing but
tensors, each under the name ``torch.nn`` gives it, and its forward pass hands them over::

    F.conv2d(input, parameters["conv2d_1.weight"], parameters["conv2d_1.bias"], stride, padding)

Which function a layer calls stands in its family's file under ``convtrain/layers/``.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter

from convtrain.errors import NetworkError
from convtrain.layers import BY_CLASS
from convtrain.models.function import CarriedFunction, Function, Observers, Tensors


class Weights(nn.Module):
    """The parameters and buffers of one layer. It has no forward: functions use it, not it them."""


class FunctionalModel(nn.Module):
    """Explicit parameters and buffers, and the function that they go into.

    Its ``state_dict`` has the keys, order and values of the module it was made from.
    """

    def __init__(self, module: nn.Module, *, carry: bool = False) -> None:
        super().__init__()
        self.observers: Observers = []
        self._function = self._convert(module, self, "", carry, {}, {})

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """Compute the output from the model's own parameters and buffers."""
        return self._function(*inputs, **keywords)

    def apply_with(
        self, parameters: Tensors, buffers: Tensors, *inputs: Any, **keywords: Any
    ) -> Any:
        """Compute the output from parameters and buffers given by name.

        A pure function of its arguments in evaluation mode, so ``torch.func.grad``, ``vmap`` and
        ``jacrev`` work over it. The gradients of each image by itself are::

            def loss(parameters, image, label):
                scores = model.apply_with(parameters, buffers, image[None])
                return F.cross_entropy(scores, label[None])

            gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)

        In training mode batch norm moves the buffers given. A tensor held under two names may be
        given under the first alone, as ``named_parameters()`` does.

        Raises:
            NetworkError: a parameter or buffer that the computation needs is not given.
        """
        return self._function.bind({**parameters, **buffers})(*inputs, **keywords)

    def functions(self) -> Iterator[Function]:
        """Yield the function of every layer, each container before its layers."""
        return self._function.walk()

    def _convert(
        self,
        module: nn.Module,
        holder: nn.Module,
        path: str,
        carry: bool,
        converted: dict[int, Function],
        first_keys: dict[int, str],
    ) -> Function:
        """Move a module's tensors into ``holder``, and return its function.

        ``converted`` and ``first_keys`` keep what is shared shared: by the id of a module or
        tensor, its function or its first name.
        """
        obstacle = _obstacle(module)
        carried = bool(obstacle) or BY_CLASS[type(module)].twin is functional_call
        if obstacle and not carry:
            raise NetworkError(
                f"{path + ': ' if path else ''}{type(module).__name__} {obstacle}, so it has no "
                f"functional counterpart; functionalize(module, carry=True) runs it as it is"
            )
        holder._parameters, holder._buffers = module._parameters, module._buffers
        holder._non_persistent_buffers_set = module._non_persistent_buffers_set
        if not carried:  # a carried module shares the dictionaries, so that it sees every change
            holder._parameters, holder._buffers = holder._parameters.copy(), holder._buffers.copy()
        holder.training = module.training
        if getattr(module, "sparse", None) is True:  # as torch.nn's layer has it
            holder.sparse = True  # type: ignore[assignment]
        if carried:
            holder._modules = module._modules
            return CarriedFunction(self.observers, module, holder, path, {}, first_keys)
        children: dict[str, Function] = {}
        for name, child in module._modules.items():
            if child is not None:
                if id(child) not in converted:
                    below = f"{path}.{name}" if path else name
                    function = self._convert(child, Weights(), below, carry, converted, first_keys)
                    converted[id(child)] = function
                children[name] = converted[id(child)]
                holder.add_module(name, children[name].holder)
        return Function(self.observers, module, holder, path, children, first_keys)


def functionalize(module: nn.Module, *, carry: bool = False) -> FunctionalModel:
    """Return the functional-style counterpart of a module made of catalogue layers.

    It holds the very same Parameters and buffers under the same names, is called with the same
    arguments, and returns the same structure.

    Args:
        module: one layer, such as ``nn.LSTM(8, 16)``, or layers within layers.
        carry: run what the catalogue does not know (a forward of your own, a layer with hooks or
            parametrizations) by ``torch.func.functional_call``, on the same explicit tensors.

    Raises:
        NetworkError: names a submodule that cannot be converted and is not to be carried.
    """
    return FunctionalModel(module, carry=carry)


def _obstacle(module: nn.Module) -> str:
    """Say why a twin would not compute what the module computes; empty if it would."""
    if any(isinstance(value, UninitializedParameter) for value in module._parameters.values()):
        return "knows its sizes only after its first input"
    if type(module) not in BY_CLASS:
        return "is not in the catalogue of layers"
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return "has hooks"
    return "has a forward of its own" if "forward" in vars(module) else ""
