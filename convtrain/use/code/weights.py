"""Layers with weights in the functional style: their Parameters, and calls of their functions."""

import ast
from typing import NamedTuple

from convtrain.use.code.arguments import Arguments
from convtrain.use.code.calls import BATCH_NORMS, CONVS, DECONVS, INSTANCE_NORMS
from convtrain.use.code.declared import NotAClassError
from convtrain.use.code.expressions import divided, literal

INPUT = "\0"
"""Stands for the input in the text of a call."""

DRAWN = "draw_like_torch"
"""The function of the file that initialises weights as ``nn.Conv2d`` does."""

RENAMED = {"running_mean": "mean", "running_var": "var"}
"""Buffers that have shorter names in the functional style."""


class Written(NamedTuple):
    """A layer with weights."""

    init: list[str]  # statements of __init__
    call: str  # of its function, where INPUT is the input


def with_weights(arguments: Arguments) -> Written:
    """Write a layer of the functional style whose weights are attributes of the class."""
    entry, attr = arguments.item.entry, arguments.item.attr
    assert entry is not None
    if entry.name in CONVS or entry.name in DECONVS:
        return _convolution(arguments, attr)
    if entry.name == "Linear":
        sizes = f"{arguments.init('out_features')}, {arguments.init('in_features')}"
        init, given = _drawn(attr, sizes, arguments.init("out_features"), arguments)
        return Written(init, f"F.linear({INPUT}, {given})")
    if entry.name == "PReLU":
        count, start = arguments.init("num_parameters"), arguments.init("init")
        init = [_parameter(f"{attr}_weight", f"torch.full(({count},), {start})")]
        return Written(init, f"F.prelu({INPUT}, self.{attr}_weight)")
    return _norm(arguments, attr)


def scale(arguments: Arguments) -> Written:
    """Write a LayerScale, which both styles hold as a Parameter."""
    attr, channels = arguments.item.attr, arguments.init("num_channels")
    start = arguments.init("value")
    init = [_parameter(attr, f"torch.full(({channels}, 1, 1), {start})")]
    return Written(init, f"{INPUT} * self.{attr}")


def _parameter(attr: str, start: str) -> str:
    return f"self.{attr} = nn.Parameter({start})"


def _drawn(attr: str, sizes: str, out: str, arguments: Arguments) -> tuple[list[str], str]:
    names = [f"self.{attr}_weight"]
    init = [_parameter(f"{attr}_weight", f"torch.empty({sizes})")]
    if arguments.const("bias"):
        init.append(_parameter(f"{attr}_bias", f"torch.empty({out})"))
        names.append(f"self.{attr}_bias")
    init.append(f"{DRAWN}({', '.join(names)})")
    return init, ", ".join(names)


def _convolution(arguments: Arguments, attr: str) -> Written:
    entry, scope = arguments.item.entry, arguments.scope
    assert entry is not None
    dims, transposed = int(entry.name[-2]), entry.name in DECONVS
    groups, kernel = arguments.expr("groups"), arguments.expr("kernel_size")
    if not isinstance(kernel, ast.Tuple) and any(
        not isinstance(size, int) for size in arguments.values("kernel_size")
    ):
        raise NotAClassError(scope.block.key)
    sizes_of = kernel.elts if isinstance(kernel, ast.Tuple) else [kernel] * dims
    around = [scope.text(size, in_forward=False) for size in sizes_of]
    own, other = ("in_channels", "out_channels") if transposed else ("out_channels", "in_channels")
    divided_text = scope.text(divided(arguments.expr(other), groups), in_forward=False)
    sizes = ", ".join([arguments.init(own), divided_text, *around])
    init, given = _drawn(attr, sizes, arguments.init("out_channels"), arguments)
    padded, more = INPUT, []
    keys = ("stride", "padding", "output_padding", "dilation", "groups")
    mode = "zeros" if transposed else arguments.const("padding_mode")
    if mode != "zeros":
        padded = f'F.pad({INPUT}, {literal(_sides(arguments, dims))}, mode="{mode}")'
    for key in keys:
        known = transposed or key != "output_padding"
        if known and arguments.is_given(key) and not (key == "padding" and mode != "zeros"):
            more.append(f"{key}={arguments.forward(key)}")
    function = f"F.conv_transpose{dims}d" if transposed else f"F.conv{dims}d"
    return Written(init, f"{function}({', '.join([padded, given, *more])})")


def _sides(arguments: Arguments, dims: int) -> list[int]:
    """Return the padding before and after, from the last dimension to the first."""

    def each(key: str) -> list[int]:
        value = arguments.const(key)
        return [*value] if isinstance(value, list | tuple) else [value] * dims  # type: ignore[list-item]

    padding, found = arguments.const("padding"), []
    for place in reversed(range(dims)):
        if padding == "same":
            total = each("dilation")[place] * (each("kernel_size")[place] - 1)
            found += [total // 2, total - total // 2]
        else:
            found += [0 if padding == "valid" else each("padding")[place]] * 2
    return found


def _norm(arguments: Arguments, attr: str) -> Written:
    entry = arguments.item.entry
    assert entry is not None
    name = entry.name
    if name in BATCH_NORMS:
        return _batch_norm(arguments, attr)
    if name in INSTANCE_NORMS:
        return _instance_norm(arguments, attr)
    eps = [f"eps={arguments.forward('eps')}"] if arguments.is_given("eps") else []
    has_weight = bool(arguments.const("affine" if name == "GroupNorm" else "elementwise_affine"))
    has_bias = has_weight and name != "RMSNorm" and _has_bias(arguments)
    if name == "GroupNorm":
        sizes, function = arguments.init("num_channels"), "F.group_norm"
        first = arguments.forward("num_groups")
    else:
        function = "F.layer_norm" if name == "LayerNorm" else "F.rms_norm"
        sizes = arguments.init("normalized_shape")
        if len({str(value) for value in arguments.values("normalized_shape")}) == 1:
            shape = arguments.const("normalized_shape")
            first = literal(shape if isinstance(shape, list | tuple) else [shape])
        elif has_weight:
            first = f"self.{attr}_weight.shape"
        else:
            raise NotAClassError(arguments.scope.block.key)
    init, names = _affine(attr, sizes, has_weight, has_bias)
    return Written(init, f"{function}({', '.join([INPUT, first, *names, *eps])})")


def _has_bias(arguments: Arguments) -> bool:
    """Tell whether a norm has a bias, which newer versions of torch can leave out."""
    return "bias" not in arguments.defaults or bool(arguments.const("bias"))


def _affine(attr: str, sizes: str, has_weight: bool, has_bias: bool) -> tuple[list[str], list[str]]:
    init, names = [], []
    for wanted, tensor, start in ((has_weight, "weight", "ones"), (has_bias, "bias", "zeros")):
        if wanted:
            init.append(_parameter(f"{attr}_{tensor}", f"torch.{start}({sizes})"))
            names.append(f"self.{attr}_{tensor}")
    return init, names


def _running(attr: str, sizes: str) -> tuple[list[str], list[str]]:
    starts = (("mean", "zeros"), ("var", "ones"))
    init = [f'self.register_buffer("{attr}_{n}", torch.{start}({sizes}))' for n, start in starts]
    return init, [f"self.{attr}_{n}" for n, _ in starts]


def _training(arguments: Arguments, attr: str) -> str:
    """Write when a norm updates its statistics: not while its weights are frozen."""
    is_frozen = arguments.item.is_frozen
    return "self.training" + f" and self.{attr}_weight.requires_grad" * is_frozen


def _batch_norm(arguments: Arguments, attr: str) -> Written:
    sizes, affine = arguments.init("num_features"), bool(arguments.const("affine"))
    has_bias = affine and _has_bias(arguments)
    init, names = _affine(attr, sizes, affine, has_bias)
    if affine and not has_bias:
        names.append("None")
    shown, training = ["None", "None"], "True"
    if arguments.const("track_running_stats"):
        more, shown = _running(attr, sizes)
        init, training = [*init, *more], _training(arguments, attr)
    last = [*names, training] if names else [f"training={training}"]
    for key in ("momentum", "eps"):
        if arguments.is_given(key):
            last.append(f"{key}={arguments.forward(key)}")
    return Written(init, f"F.batch_norm({', '.join([INPUT, *shown, *last])})")


def _instance_norm(arguments: Arguments, attr: str) -> Written:
    sizes, affine = arguments.init("num_features"), bool(arguments.const("affine"))
    init, names = _affine(attr, sizes, affine, affine)
    shown: list[str] = []
    if arguments.const("track_running_stats"):
        more, shown = _running(attr, sizes)
        init = [*init, *more]
        training = _training(arguments, attr)
        names = [*names, training] if names else [f"use_input_stats={training}"]
    elif names:
        names = [f"weight={names[0]}", f"bias={names[1]}"]
    for key in ("momentum", "eps"):
        if arguments.is_given(key) and (key == "eps" or shown):
            names.append(f"{key}={arguments.forward(key)}")
    return Written(init, f"F.instance_norm({', '.join([INPUT, *shown, *names])})")
