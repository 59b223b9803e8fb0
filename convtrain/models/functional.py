"""The functional style: weights are explicit Parameters, the forward pass is a function of them.

The model holds only tensors, under the names that ``torch.nn`` gives them, and passes them on::

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
    """The parameters and buffers of one layer, without a forward; functions take its tensors."""


class FunctionalModel(nn.Module):
    """Explicit parameters and buffers, and the function that computes the output from them.

    Its ``state_dict`` has the keys, order and values of the original module.
    """

    def __init__(self, module: nn.Module, *, carry: bool = False) -> None:
        super().__init__()
        self.observers: Observers = []
        self._function = self._convert(module, self, "", carry, {}, {})

    def forward(self, *inputs: object, **keywords: object) -> object:
        return self._function(*inputs, **keywords)

    def apply_with(
        self, parameters: Tensors, buffers: Tensors, *inputs: object, **keywords: object
    ) -> Any:
        """Compute the output from parameters and buffers given by name.

        In evaluation mode this is a pure function, so ``torch.func.grad``, ``vmap`` and ``jacrev``
        accept it; the README shows the gradients of each image. In training mode batch norm changes
        the given buffers. A tied tensor may be given under its first name alone, as by
        ``named_parameters()``. A NetworkError names a missing tensor.
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
        if carried and holder is not self:  # it keeps its own train(), to() and state_dict()
            return CarriedFunction(self.observers, module, module, path, {}, first_keys)
        holder._parameters, holder._buffers = module._parameters, module._buffers
        holder._non_persistent_buffers_set = module._non_persistent_buffers_set
        if not carried:  # a carried module shares them, and so sees every change
            holder._parameters, holder._buffers = holder._parameters.copy(), holder._buffers.copy()
        holder.training = module.training
        if getattr(module, "sparse", None) is True:  # torch.nn's layer has this attribute
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

    It holds the same Parameters and buffers under the same names, takes the same arguments, and
    returns the same structure.

    ``carry`` runs modules without a twin (with a forward of their own, hooks or parametrizations)
    as they are, on the same tensors. Otherwise a NetworkError names them.
    """
    return FunctionalModel(module, carry=carry)


def _obstacle(module: nn.Module) -> str:
    """Return the reason why no twin computes the module, or an empty text."""
    if any(isinstance(value, UninitializedParameter) for value in module._parameters.values()):
        return "knows its sizes only after its first input"
    if type(module) not in BY_CLASS:
        return "is not in the catalogue of layers"
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return "has hooks"
    return "has a forward of its own" if "forward" in vars(module) else ""
