"""How each layer of the catalogue is written: what a class holds of it, and how it is called."""

import re
from collections.abc import Callable
from typing import Literal

from convtrain.layers.entry import Entry
from convtrain.network.arguments import signature_of
from convtrain.use.code.arguments import Arguments
from convtrain.use.code.expressions import literal

Style = Literal["nn", "functional"]

CONVS = ("Conv1d", "Conv2d", "Conv3d")
DECONVS = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
BATCH_NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")
INSTANCE_NORMS = ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
NORMS = (*BATCH_NORMS, *INSTANCE_NORMS, "LayerNorm", "GroupNorm", "RMSNorm")
DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
HELD = (*CONVS, *DECONVS, *NORMS, "Linear", "PReLU", "LayerScale")

STEMS = {
    **dict.fromkeys(CONVS, "conv"),
    **dict.fromkeys(DECONVS, "deconv"),
    **dict.fromkeys(BATCH_NORMS, "bn"),
    **dict.fromkeys(NORMS[3:], "norm"),
    **dict.fromkeys(DROPOUTS, "dropout"),
    **{"Linear": "fc", "LayerScale": "scale", "PReLU": "prelu", "RReLU": "rrelu"},
    **{"LSTM": "lstm", "GRU": "gru", "RNN": "rnn", "TransformerEncoderLayer": "encoder"},
    **{"LSTMCell": "cell", "GRUCell": "cell", "RNNCell": "cell", "SyncBatchNorm": "bn"},
}
"""Class to the name that people give to an attribute of it."""

ACTIVATIONS = (
    *("ELU", "Hardshrink", "Hardsigmoid", "Hardtanh", "Hardswish", "LeakyReLU", "LogSigmoid"),
    *("PReLU", "ReLU", "ReLU6", "RReLU", "SELU", "CELU", "GELU", "Sigmoid", "SiLU", "Mish"),
    *("Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold"),
)

FUNCTIONS = {
    **{"GELU": "F.gelu", "Sigmoid": "torch.sigmoid", "Tanh": "torch.tanh"},
    **{"LogSigmoid": "F.logsigmoid", "Upsample": "F.interpolate"},
}
"""Layer without weights to its function, where the catalogue does not name it."""

Call = Callable[[Arguments, str], str]
"""Writes a layer without weights, from its arguments and the text of its input."""


def is_held(entry: Entry, style: Style) -> bool:
    """Tell whether a class holds something of a layer: weights, or a module."""
    if entry.own is not None:
        return isinstance(entry.own, type)
    if entry.name in HELD or is_module_always(entry):
        return True
    return style == "nn" and entry.name in (*DROPOUTS, "RReLU")


def is_module_always(entry: Entry) -> bool:
    """Tell whether both styles hold the module, because no function computes the layer."""
    if entry.own is not None:
        return isinstance(entry.own, type)
    return entry.name not in HELD and entry.name not in CALLS and function_of(entry) is None


def stem_of(entry: Entry) -> str:
    return STEMS.get(entry.name) or re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", entry.name).lower()


def function_of(entry: Entry) -> str | None:
    """Return the function of a layer without weights, which takes its arguments by name."""
    named = FUNCTIONS.get(entry.name, entry.function_name)
    return named if named.startswith("F.") or entry.name in FUNCTIONS else None


# --- modules --------------------------------------------------------------------------------------


def constructor(arguments: Arguments) -> str:
    """Write a call of the layer's class."""
    entry = arguments.item.entry
    assert entry is not None
    if entry.own is not None:
        given = [key for key in _keys(arguments) if arguments.is_given(key)]
        return f"{entry.name}({', '.join(f'{key}={arguments.init(key)}' for key in given)})"
    return f"nn.{entry.name}({_listed(arguments, arguments.init)})"


def _keys(arguments: Arguments) -> list[str]:
    entry, (first, *_) = arguments.item.entry, arguments.item.uses
    assert entry is not None
    assert first.layer is not None
    known = [*signature_of(entry)]
    return [
        *known,
        *(key for key in first.layer.arguments if key not in known and key != "function"),
    ]


def _listed(arguments: Arguments, write: Callable[[str], str], *omit: str) -> str:
    """Write arguments as people do: those that are required, then the others by name."""
    entry = arguments.item.entry
    assert entry is not None
    shown = []
    for key in _keys(arguments):
        if key in omit or (key == "inplace" and entry.own is None):
            continue
        if key not in arguments.defaults or (key == "p" and entry.name in DROPOUTS):
            shown.append(write(key))
        elif arguments.is_given(key):
            shown.append(f"{key}={write(key)}")
    return ", ".join(shown)


# --- layers without weights -----------------------------------------------------------------------


def call_without_weights(arguments: Arguments, x: str) -> str:
    """Write the call of a layer of which a class holds nothing."""
    entry = arguments.item.entry
    assert entry is not None
    if entry.own is not None:
        given = [key for key in _keys(arguments) if arguments.is_given(key)]
        text = ", ".join([x, *(f"{key}={arguments.forward(key)}" for key in given)])
        return f"{entry.name}({text})"
    if (special := CALLS.get(entry.name)) is not None:
        return special(arguments, x)
    others = _listed(arguments, arguments.forward)
    return f"{function_of(entry)}({', '.join([x, others]) if others else x})"


def _dropout(arguments: Arguments, x: str) -> str:
    entry = arguments.item.entry
    assert entry is not None
    return f"{entry.function_name}({x}, {arguments.forward('p')}, self.training)"


def _rrelu(arguments: Arguments, x: str) -> str:
    others = _listed(arguments, arguments.forward)
    return f"F.rrelu({', '.join(filter(None, [x, others, 'training=self.training']))})"


def _flatten(arguments: Arguments, x: str) -> str:
    end = f", {arguments.forward('end_dim')}" if arguments.is_given("end_dim") else ""
    return f"torch.flatten({x}, {arguments.forward('start_dim')}{end})"


def _select(arguments: Arguments, x: str) -> str:
    dim, index = arguments.const("dim"), arguments.forward("index")
    if isinstance(dim, int) and dim >= 0:
        return f"{x}[{':, ' * dim}{index}]"
    return f"{x}.select({literal(dim)}, {index})"


def _pick(arguments: Arguments, x: str) -> str:
    index = arguments.const("index")
    return x + "".join(f"[{each}]" for each in (index if isinstance(index, list) else [index]))


def _permute(arguments: Arguments, x: str) -> str:
    return f"{x}.permute{literal(arguments.const('dims'))}"


def _pad(mode: str) -> Call:
    def call(arguments: Arguments, x: str) -> str:
        entry, padding = arguments.item.entry, arguments.const("padding")
        assert entry is not None
        sides = [padding] * (2 * int(entry.name[-2])) if isinstance(padding, int) else padding
        how = f', mode="{mode}"' if mode else ""
        value = f", value={arguments.forward('value')}" if entry.name.startswith("Const") else ""
        return f"F.pad({x}, {literal(sides)}{how}{value})"

    return call


def _resize(mode: str, more: str = "") -> Call:
    def call(arguments: Arguments, x: str) -> str:
        return f'F.interpolate({x}, {_listed(arguments, arguments.forward)}, mode="{mode}"{more})'

    return call


def _stochastic_depth(arguments: Arguments, x: str) -> str:
    name = "stochastic_depth_of_batch" if arguments.const("mode") == "batch" else "stochastic_depth"
    return f"{name}({x}, {arguments.forward('p')}, self.training)"


CALLS: dict[str, Call] = {
    "Identity": lambda arguments, x: x,
    "Flatten": _flatten,
    "Unflatten": lambda a, x: f"{x}.unflatten({literal(a.const('dim'))}, {_size(a)})",
    "Select": _select,
    "Pick": _pick,
    "Permute": _permute,
    "RReLU": _rrelu,
    "Softmax2d": lambda arguments, x: f"F.softmax({x}, dim=-3)",
    "UpsamplingNearest2d": _resize("nearest"),
    "UpsamplingBilinear2d": _resize("bilinear", ", align_corners=True"),
    "StochasticDepth": _stochastic_depth,
    **dict.fromkeys(DROPOUTS, _dropout),
    **{f"ReflectionPad{n}d": _pad("reflect") for n in (1, 2, 3)},
    **{f"ReplicationPad{n}d": _pad("replicate") for n in (1, 2, 3)},
    **{f"CircularPad{n}d": _pad("circular") for n in (1, 2, 3)},
    **{f"ConstantPad{n}d": _pad("") for n in (1, 2, 3)},
    **{f"ZeroPad{n}d": _pad("") for n in (1, 2, 3)},
}
"""Layers whose functions take other arguments than their classes."""


def _size(arguments: Arguments) -> str:
    return literal(arguments.const("unflattened_size"))
