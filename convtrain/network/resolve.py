"""From a declared network to resolved layers: names, inferred arguments, shapes.

A network is declared as a list of layers. An entry is one of::

    - ReLU                                      # a layer, by the name of its torch.nn class
    - Conv2d: {out_channels: 8, kernel_size: 3} # with arguments; in_channels follows from the input
    - Linear: {out_features: 10}
      name: head                                # a name of your own; linear_1 otherwise
    - [Flatten, Linear: {out_features: 10}]     # a list stands for a Sequential
    - Residual: {body: [...], shortcut: [...]}  # a composite layer, made of lists of layers
    - Repeat: {times: 3, layers: [...]}         # the layers, three times; $index counts 0, 1, 2
    - bottleneck: {width: 64}                   # a block of your own, declared under blocks

The blocks stand beside the layers::

    blocks:
      bottleneck:
        takes: {width: required, out: $width * 4, stride: 1}   # parameters and their defaults
        layers:
          - Conv2d: {out_channels: $width, kernel_size: 1}
          - Conv2d: {out_channels: $out, kernel_size: 3, stride: $stride, padding: 1}

A used block is a Sequential named after it; with ``name: stage2`` beside it, a named stage. Within
the block ``$width`` is the value that was given: a number, a word, or a list of layers. Arithmetic
may stand in its place (``+ - * / //`` and brackets).

Composite layers: ``Sequential``; ``Residual`` (body + shortcut); ``Concat`` and ``Sum`` (each of
their layers sees the same input); ``Dense`` (each sees all before it); ``Gate`` (body times input).
A layer that returns several tensors, such as ``LSTM``, is followed by a ``Pick`` of one of them.

Nothing here holds a weight: shapes are found on torch's meta device, which computes shapes and no
values.
"""

import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convtrain.errors import NetworkError, first_line
from convtrain.layers.blocks import Pick
from convtrain.layers.containers import sequential
from convtrain.layers.entry import Entry
from convtrain.network.expand import ExpandedLayer, expand
from convtrain.network.expressions import brief

PROBE_BATCH = 2  # batch norm refuses a single image in training


@dataclass(frozen=True)
class Layer:
    """One resolved layer.

    Attributes:
        name: unique within its chain; ``path`` is the name from the network's root, with dots.
        entry: its row of the catalogue.
        arguments: those declared and those inferred, as the class takes them.
        chains: the layers inside a composite one, by constructor argument.
        input_shape, output_shape: of one example, without the batch dimension; where there are
            several tensors, of the first.
    """

    name: str
    path: str
    entry: Entry
    arguments: Mapping[str, Any]
    chains: Mapping[str, tuple["Layer", ...]]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def make(self) -> nn.Module:
        """Make the ``torch.nn`` module, with freshly drawn weights."""
        return self._around({arg: make_chain(layers) for arg, layers in self.chains.items()})

    def make_empty(self) -> nn.Module:
        """Make the module of a composite layer without the layers inside it."""
        return self._around({argument: nn.Sequential() for argument in self.chains})

    def _around(self, children: dict[str, nn.Sequential]) -> nn.Module:
        if self.entry.module is nn.Sequential:
            return children["layers"]
        return self.entry.module(**self.arguments, **children)

    def leaves(self) -> Iterator["Layer"]:
        """Yield the layers that compute by themselves: this one, or those inside it, in order."""
        if not self.chains:
            yield self
        for layers in self.chains.values():
            for layer in layers:
                yield from layer.leaves()


@dataclass(frozen=True)
class Network:
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.layers[-1].output_shape


def resolve_network(
    layers: Sequence[Any], input_shape: Sequence[int], blocks: Mapping[str, Any] | None = None
) -> Network:
    """Resolve a declared network for inputs of ``input_shape`` (without the batch dimension).

    Raises:
        NetworkError: names the layer, what came in and what is wrong with it.
    """
    if not layers:
        raise NetworkError("network.layers is empty; declare at least one layer, such as Flatten")
    declared = expand(layers, {} if blocks is None else blocks)
    if not declared:
        raise NetworkError("network.layers comes out empty; declare at least one layer")
    resolved: list[Layer] = []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that are refused below
        probe = torch.empty((PROBE_BATCH, *input_shape), device="meta")
        output = sequential(
            probe, children=[partial(_resolve, layer, resolved) for layer in declared]
        )
        if not isinstance(output, Tensor):
            raise NetworkError(f"{declared[-1].where}: {_several(output)}")
        if output.shape[:1] != (PROBE_BATCH,):
            raise NetworkError(
                f"{declared[-1].where}: {PROBE_BATCH} images come in, and {tuple(output.shape)} "
                f"comes out; dimension 0 must still be the batch"
            )
    return Network(tuple(resolved), tuple(input_shape))


def make_chain(layers: Sequence[Layer]) -> nn.Sequential:
    """Make the modules of a chain, in order, under the layers' names."""
    return nn.Sequential(OrderedDict((layer.name, layer.make()) for layer in layers))


def _resolve(declared: ExpandedLayer, resolved: list[Layer], input: Any) -> Any:
    """Compute a layer's output on the meta device, and append the layer to ``resolved``."""
    entry, arguments = declared.entry, dict(declared.arguments)
    chains: dict[str, list[Layer]] = {argument: [] for argument in declared.chains}
    try:
        if not isinstance(input, Tensor) and entry.module is not Pick:
            raise ValueError(_several(input))
        for argument, infer in entry.infer.items():
            if argument not in arguments:
                arguments[argument] = infer(input.shape)
        if arguments.get("batch_first") is False:
            raise ValueError("the batch is dimension 0, not time; leave batch_first out")
        if entry.chains:
            output = _compute_block(declared, chains, input)
        else:
            with torch.device("meta"):
                output = entry.module(**arguments)(input)
        first_in, first_out = _first(input), _first(output)
        if 0 in first_out.shape:
            raise ValueError(f"nothing is left of it, the output is {_shown(output)}")
    except NetworkError:
        raise  # a layer inside this one has said what is wrong
    except Exception as error:
        came_in = f"input {_shown(_first(input))}"
        if declared.arguments:
            came_in += f", {brief(declared.arguments)}"
        raise NetworkError(f"{declared.where}: {came_in}: {first_line(error)}") from error
    resolved.append(
        Layer(
            name=declared.name,
            path=declared.path,
            entry=entry,
            arguments=arguments,
            chains={argument: tuple(layers) for argument, layers in chains.items()},
            input_shape=tuple(first_in.shape[1:]),
            output_shape=tuple(first_out.shape[1:]),
        )
    )
    return output


def _first(value: Any) -> Tensor:
    while isinstance(value, (tuple, list)):
        value = value[0]
    return value


def _several(value: Any) -> str:
    return (
        f"a {type(value).__name__} of {len(value)} is passed on where one tensor must be; "
        f"pick one, as '- Pick: {{index: 0}}'"
    )


def _compute_block(
    declared: ExpandedLayer, chains: dict[str, list[Layer]], input: Tensor
) -> Tensor:
    """Run a composite layer's twin over layers that are resolved as it calls them.

    So the shapes inside a block follow from the very function that both styles compute, and each
    layer is computed once, however deep it lies.
    """
    entry, arguments = declared.entry, declared.arguments
    calls: dict[str, list[Callable[[Tensor], Tensor]]] = {
        argument: [partial(_resolve, layer, chains[argument]) for layer in layers]
        for argument, layers in declared.chains.items()
    }
    given: dict[str, Any] = {}
    for name in list(inspect.signature(entry.twin).parameters)[1:]:
        if name == "children":
            given[name] = calls[entry.chains[0]]
        elif name in entry.chains:
            given[name] = partial(sequential, children=calls.get(name, []))
        elif name == "training":
            given[name] = True
        else:
            made = inspect.signature(entry.module.__init__).parameters[name]
            given[name] = arguments.get(name, made.default)
    return entry.twin(input, **given)


def _shown(tensor: Tensor) -> str:
    return f"(N, {', '.join(map(str, tensor.shape[1:]))})"
