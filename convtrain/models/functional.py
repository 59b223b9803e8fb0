"""The functional style: weights are explicit Parameters, a forward pass is a function of them.

``torch.nn.Conv2d`` hides its filter inside a module; here it lies open. The model holds nothing but
tensors, each under the name ``torch.nn`` gives it, and its forward pass hands them over::

    F.conv2d(input, parameters["conv2d_1.weight"], parameters["conv2d_1.bias"], stride, padding)

Which function a layer calls stands in its family's file under ``convtrain/layers/``.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from convtrain.errors import NetworkError
from convtrain.layers import BY_CLASS


class Weights(nn.Module):
    """The parameters and buffers of one layer. It has no forward: functions use it, not it them."""


class FunctionalModel(nn.Module):
    """Explicit parameters and buffers, and the function that they go into.

    Its ``state_dict`` has the keys, order and values of the module it was made from.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.observer: Callable[[str, Any], None] | None = None
        self._function = _Function(self, self, module, "")

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """Compute the output from the model's own parameters and buffers."""
        return self.apply_with(
            dict(self.named_parameters(remove_duplicate=False)),
            dict(self.named_buffers(remove_duplicate=False)),
            *inputs,
            **keywords,
        )

    def apply_with(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        *inputs: Any,
        **keywords: Any,
    ) -> Any:
        """Compute the output from parameters and buffers given by name.

        A pure function of its arguments in evaluation mode, so ``torch.func.grad``, ``vmap`` and
        ``jacrev`` work over it. In training mode batch norm moves the buffers given.
        """
        return self._function.bind({**parameters, **buffers})(*inputs, **keywords)


def functionalize(module: nn.Module) -> FunctionalModel:
    """Return the functional-style counterpart of a module made of catalogue layers.

    It holds the very same Parameters and buffers under the same names.

    Raises:
        NetworkError: names a submodule whose class is not in the catalogue.
    """
    return FunctionalModel(module).train(module.training)


class _Function:
    """What one layer computes: its twin, and where each of the twin's arguments comes from."""

    def __init__(
        self, model: FunctionalModel, holder: nn.Module, module: nn.Module, prefix: str
    ) -> None:
        entry = BY_CLASS.get(type(module))
        if entry is None:
            where = f"{prefix[:-1]}: " if prefix else ""
            raise NetworkError(
                f"{where}{type(module).__name__} is not in the catalogue of layers, so it has no "
                f"functional counterpart"
            )
        self.twin, self.model, self.holder, self.path = entry.twin, model, holder, prefix[:-1]
        holder.training = module.training
        for name, parameter in module._parameters.items():
            holder.register_parameter(name, parameter)
        for name, buffer in module._buffers.items():
            persistent = name not in module._non_persistent_buffers_set
            holder.register_buffer(name, buffer, persistent=persistent)
        self.children: dict[str, _Function] = {}
        for name, child in module.named_children():
            weights = Weights()
            holder.add_module(name, weights)
            self.children[name] = _Function(model, weights, child, f"{prefix}{name}.")
        wanted = list(inspect.signature(self.twin).parameters)
        self.tensors = {
            name: prefix + name
            for name in wanted
            if name in module._parameters or name in module._buffers
        }
        self.takes_all_children = "children" in wanted
        self.takes_training = "training" in wanted
        self.settings = {
            name: getattr(module, name)
            for name in wanted
            if name not in self.tensors
            and name not in self.children
            and name not in ("children", "training")
            and hasattr(module, name)
        }

    def bind(self, values: Mapping[str, Tensor]) -> Callable[..., Any]:
        """Return the layer as a function of its inputs alone."""
        children: dict[str, Any] = {n: child.bind(values) for n, child in self.children.items()}

        def call(*inputs: Any, **keywords: Any) -> Any:
            arguments: dict[str, Any] = {n: values.get(key) for n, key in self.tensors.items()}
            if self.takes_all_children:
                arguments["children"] = children.values()
            else:
                arguments.update(children)
            if self.takes_training:
                arguments["training"] = self.holder.training
            output = self.twin(*inputs, **arguments, **self.settings, **keywords)
            if self.model.observer is not None and self.path:
                self.model.observer(self.path, output)
            return output

        return call
