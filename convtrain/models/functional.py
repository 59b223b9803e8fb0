"""The functional style: weights are explicit Parameters, a forward pass is a function of them.

The model holds nothing but tensors, each under the name that ``torch.nn`` gives it, and its forward
pass hands them over::

    F.conv2d(input, parameters["conv2d_1.weight"], parameters["conv2d_1.bias"], stride, padding)

Each family's file in ``convtrain/layers/`` names the functions that its layers call.
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
    """The parameters and buffers of one layer. It has no forward; functions take its tensors."""


class FunctionalModel(nn.Module):
    """Explicit parameters and buffers, and the function that computes the output from them.

    Its ``state_dict`` has the keys, order and values of the module it was made from.
    """

    def __init__(self, module: nn.Module, *, carry: bool = False) -> None:
        super().__init__()
        self.observers: Observers = []
        self._function = self._convert(module, self, "", carry, {}, {})

    def forward(self, *inputs: object, **keywords: object) -> object:
        """Compute the output from the model's own parameters and buffers."""
        return self._function(*inputs, **keywords)

    def apply_with(
        self, parameters: Tensors, buffers: Tensors, *inputs: object, **keywords: object
    ) -> Any:
        """Compute the output from parameters and buffers given by name.

        A pure function of its arguments in evaluation mode, so ``torch.func.grad``, ``vmap`` and
        ``jacrev`` work over it. The gradients of each image by itself are::

            def loss(parameters, image, label):
                logits = model.apply_with(parameters, buffers, image[None])
                return F.cross_entropy(logits, label[None])

            gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)

        In training mode batch norm changes the buffers given. A tensor held under two names may be
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

        Shared modules and tied tensors stay shared: ``converted`` maps the id of a module to its
        function, ``first_keys`` the id of a tensor to its first name.
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
        carry: let modules without a twin (a forward of your own, a layer with hooks or
            parametrizations) run as they are, on the same explicit tensors.

    Raises:
        NetworkError: names a submodule without a twin, where ``carry`` is False.
    """
    return FunctionalModel(module, carry=carry)


def _obstacle(module: nn.Module) -> str:
    """Return why no twin computes what the module computes, or an empty text if one does."""
    if any(isinstance(value, UninitializedParameter) for value in module._parameters.values()):
        return "knows its sizes only after its first input"
    if type(module) not in BY_CLASS:
        return "is not in the catalogue of layers"
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return "has hooks"
    return "has a forward of its own" if "forward" in vars(module) else ""
