"""Resolve a declared network: layer names, inferred arguments, shapes.

A network is declared as a list of layers. An entry is one of::

    - ReLU                                      # a layer, by the name of its torch.nn class
    - Conv2d: {out_channels: 8, kernel_size: 3} # with arguments; in_channels is inferred
    - Linear: {out_features: 10}
      name: head                                # a name of your own; linear_1 otherwise
    - [Flatten, Linear: {out_features: 10}]     # a list is a Sequential
    - Residual: {body: [...], shortcut: [...]}  # a composite layer, made of lists of layers
    - Repeat: {times: 3, layers: [...]}         # the layers, three times; $index counts 0, 1, 2
    - bottleneck: {width: 64}                   # a block of your own, declared under blocks

Blocks are declared beside the layers::

    blocks:
      bottleneck:
        takes: {width: required, out: $width * 4, stride: 1}   # parameters and their defaults
        layers:
          - Conv2d: {out_channels: $width, kernel_size: 1}
          - Conv2d: {out_channels: $out, kernel_size: 3, stride: $stride, padding: 1}

A use of a block is a Sequential named after the block, or as ``name:`` beside it says. Inside the
block, ``$width`` is the given value: a number, a word, or a list of layers. Numbers allow
arithmetic (``+ - * / //`` and brackets).

Composite layers: ``Sequential``; ``Residual`` (body + shortcut); ``Concat`` and ``Sum`` (all layers
have the same input); ``Dense`` (each has the outputs of all before it); ``Gate`` (body times
input). After a layer that returns several tensors, such as ``LSTM``, a ``Pick`` selects one.

Shapes are computed on torch's meta device, without values.
"""

import inspect
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from convtrain.errors import NetworkError, error_line, first_line
from convtrain.layers.blocks import Pick
from convtrain.layers.containers import sequential
from convtrain.layers.entry import Entry
from convtrain.network.expand import ExpandedLayer, expand
from convtrain.network.expressions import brief
from convtrain.network.own import own_output

PROBE_BATCH = 2  # in training, batch norm refuses a single image


@dataclass(frozen=True)
class ResolvedLayer:
    """A layer whose arguments and shapes are known.

    ``input_shape`` and ``output_shape`` exclude the batch dimension. Where there are several
    tensors, they describe the first.
    """

    name: str  # unique among its siblings
    path: str  # the name from the network's root
    entry: Entry
    arguments: Mapping[str, object]  # declared and inferred, as the class takes them
    sublayers: Mapping[str, tuple["ResolvedLayer", ...]]  # by constructor argument
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def make(self) -> nn.Module:
        """Make the ``torch.nn`` module, with fresh weights."""
        return self._around({arg: make_sequential(inner) for arg, inner in self.sublayers.items()})

    def make_empty(self) -> nn.Module:
        """Make the module of a composite layer without the layers inside it."""
        return self._around({argument: nn.Sequential() for argument in self.sublayers})

    def _around(self, children: dict[str, nn.Sequential]) -> nn.Module:
        if self.entry.module is nn.Sequential:
            return children["layers"]
        return self.entry.module(**self.arguments, **children)

    def leaves(self) -> Iterator["ResolvedLayer"]:
        """Yield the layers without sublayers: this one, or those inside it, in order."""
        if not self.sublayers:
            yield self
        for layers in self.sublayers.values():
            for layer in layers:
                yield from layer.leaves()


@dataclass(frozen=True)
class ResolvedNetwork:
    layers: tuple[ResolvedLayer, ...]
    input_shape: tuple[int, ...]

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.layers[-1].output_shape


def resolve_network(
    layers: Sequence[object],
    input_shape: Sequence[int],
    blocks: object = None,
    trust: Sequence[str] = (),
) -> ResolvedNetwork:
    """Resolve a declared network for inputs of ``input_shape`` (without the batch dimension).

    ``trust`` lists the packages whose layers may be named by import path.
    A NetworkError names the layer, its input and the mistake.
    """
    if not layers:
        raise NetworkError("network.layers is empty; declare at least one layer, such as Flatten")
    declared = expand(layers, {} if blocks is None else blocks, trust)
    if not declared:
        raise NetworkError("network.layers expands to nothing; declare at least one layer")
    resolved: list[ResolvedLayer] = []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of sizes that are refused below
        output: object = torch.empty((PROBE_BATCH, *input_shape), device="meta")
        for layer in declared:
            output = _resolve(layer, resolved, output)
    if not isinstance(output, Tensor):
        raise NetworkError(f"{declared[-1].where}: {_several(output)}")
    if output.shape[:1] != (PROBE_BATCH,):
        raise NetworkError(
            f"{declared[-1].where}: the input holds {PROBE_BATCH} images, and the output has shape "
            f"{tuple(output.shape)}; dimension 0 must still be the batch"
        )
    return ResolvedNetwork(tuple(resolved), tuple(input_shape))


def make_sequential(layers: Sequence[ResolvedLayer]) -> nn.Sequential:
    """Make the modules of some layers, in order, under the layers' names."""
    return nn.Sequential(OrderedDict((layer.name, layer.make()) for layer in layers))


def _resolve(declared: ExpandedLayer, resolved: list[ResolvedLayer], input: object) -> object:
    """Compute a layer's output on the meta device, and append the layer to ``resolved``."""
    entry, arguments = declared.entry, dict(declared.arguments)
    sublayers: dict[str, list[ResolvedLayer]] = {argument: [] for argument in declared.sublayers}
    try:
        if not isinstance(input, Tensor) and entry.module is not Pick:
            raise ValueError(_several(input))
        first_input = _first(input)
        for argument, infer in entry.infer.items():
            if argument not in arguments:
                arguments[argument] = infer(first_input.shape)
        if arguments.get("batch_first") is False:
            raise ValueError("the batch is dimension 0, not time; leave batch_first out")
        if entry.sublayers:
            output = _compute_composite(declared, sublayers, first_input)
        elif entry.own is not None:
            output = own_output(entry, arguments, first_input)
        else:
            with torch.device("meta"):
                output = entry.module(**arguments)(input)
        first_output = _first(output)
        if 0 in first_output.shape:
            raise ValueError(f"the output is empty: {_shown(first_output)}")
    except NetworkError:
        raise  # from a sublayer
    except Exception as error:
        given = f", {brief(declared.arguments)}" if declared.arguments else ""
        reason = first_line(error) if entry.own is None else error_line(error)
        raise NetworkError(
            f"{declared.where}: input {_shown(_first(input))}{given}: {reason}"
        ) from error
    resolved.append(
        ResolvedLayer(
            name=declared.name,
            path=declared.path,
            entry=entry,
            arguments=arguments,
            sublayers={argument: tuple(layers) for argument, layers in sublayers.items()},
            input_shape=tuple(first_input.shape[1:]),
            output_shape=tuple(first_output.shape[1:]),
        )
    )
    return output


def _compute_composite(
    declared: ExpandedLayer, sublayers: dict[str, list[ResolvedLayer]], input: Tensor
) -> object:
    """Run a composite layer's twin over layers that are resolved as it calls them.

    So both styles and shape inference share one function, and each layer is computed once,
    however deep it is nested.
    """
    entry = declared.entry
    calls = {
        argument: [partial(_resolve, layer, sublayers[argument]) for layer in layers]
        for argument, layers in declared.sublayers.items()
    }
    constructor = inspect.signature(entry.module.__init__).parameters
    given: dict[str, object] = {}
    for name in list(inspect.signature(entry.twin).parameters)[1:]:
        if name == "children":
            given[name] = calls[entry.sublayers[0]]
        elif name in entry.sublayers:
            given[name] = partial(sequential, children=calls.get(name, []))
        elif name == "training":
            given[name] = True
        else:
            given[name] = declared.arguments.get(name, constructor[name].default)
    return entry.twin(input, **given)


def _first(value: object) -> Tensor:
    while isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, Tensor):
        raise TypeError(f"returns {brief(value)}, a {type(value).__name__}; return a tensor")
    return value


def _several(value: object) -> str:
    assert isinstance(value, (tuple, list))
    return (
        f"a {type(value).__name__} of {len(value)} is passed on where one tensor must be; "
        f"pick one, as '- Pick: {{index: 0}}'"
    )


def _shown(tensor: Tensor) -> str:
    return f"(N, {', '.join(map(str, tensor.shape[1:]))})"
