"""What every layer of the catalogue is tried with: constructor arguments, and inputs for the call.

An input is a function ``(dtype) -> tensor``; floating ones take the type under test, so that one
row serves float32, float64 and bfloat16.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from convtrain.layers.blocks import (
    Concat,
    Dense,
    Gate,
    LayerScale,
    Permute,
    Pick,
    Residual,
    Select,
    StochasticDepth,
    Sum,
)
from convtrain.layers.vision import AffineGrid, GridSample, Interpolate, Normalize, OneHot, Pad

Make = Callable[[torch.dtype], Any]
SAME: Any = object()
"""Stands for the first input once more: the same tensor, as in self-attention."""


@dataclass(frozen=True)
class Case:
    """One way to construct a layer and to call it.

    Attributes:
        inputs, keywords: what it is called with.
        positional, arguments: of the constructor.
    """

    inputs: Sequence[Make]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    keywords: Mapping[str, Make] = field(default_factory=dict)
    positional: Sequence[Any] = ()

    def is_known_to(self, module: type[nn.Module]) -> bool:
        """Tell whether this version of torch has all the arguments."""
        try:
            inspect.signature(module).bind(*self.positional, **self.arguments)
        except TypeError:
            return False
        return True

    def make(self, module: type[nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
        def plain(value: Any) -> Any:
            return value() if isinstance(value, Later) else value

        made = module(
            *(plain(value) for value in self.positional),
            **{name: plain(value) for name, value in self.arguments.items()},
        )
        return made.to(dtype)


@dataclass(frozen=True)
class Later:
    """A constructor argument that is made anew each time."""

    make: Callable[[], Any]

    def __call__(self) -> Any:
        return self.make()


@dataclass(frozen=True)
class Still:
    """An input that torch has no gradient for."""

    tensor: Tensor


def still(make: Make) -> Make:
    return lambda dtype: Still(make(dtype))


def floats(*shape: int, scale: float = 1.0) -> Make:
    return lambda dtype: (scale * torch.randn(shape)).to(dtype)


def uniform(*shape: int) -> Make:
    """Between 0.05 and 0.95, as probabilities are."""
    return lambda dtype: (0.05 + 0.9 * torch.rand(shape)).to(dtype)


def log_probabilities(*shape: int) -> Make:
    return lambda dtype: torch.randn(shape).log_softmax(-1).to(dtype)


def whole(high: int, *shape: int, low: int = 0) -> Make:
    return lambda dtype: torch.randint(low, high, shape)


def signs(*shape: int) -> Make:
    return lambda dtype: (torch.randint(0, 2, shape) * 2 - 1).to(dtype)


def exactly(value: Any) -> Make:
    return lambda dtype: value


def packed(lengths: Sequence[int], features: int, *, enforce_sorted: bool = False) -> Make:
    def make(dtype: torch.dtype) -> Any:
        padded = torch.randn(max(lengths), len(lengths), features).to(dtype).requires_grad_()
        return pack_padded_sequence(padded, torch.tensor(lengths), enforce_sorted=enforce_sorted)

    return make


def pair(first: Make, second: Make) -> Make:
    return lambda dtype: (first(dtype), second(dtype))


def pooled_indices(ndim: int, kernel: int) -> Make:
    """Where max pooling found the maxima of some image of 8 pixels a side."""
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[ndim]
    return lambda dtype: pool(torch.randn(2, 3, *[8] * ndim), kernel, return_indices=True)[1]


def causal(length: int) -> Make:
    return lambda dtype: nn.Transformer.generate_square_subsequent_mask(length, dtype=dtype)


SIGNAL, IMAGE, VOLUME = floats(2, 4, 11), floats(2, 4, 9, 8), floats(2, 4, 6, 5, 7)
BY_RANK = {1: SIGNAL, 2: IMAGE, 3: VOLUME}
VECTOR, SEQUENCE = floats(3, 6), floats(5, 3, 6)


def _plain(*arguments: Mapping[str, Any], inputs: Sequence[Make] = (IMAGE,)) -> list[Case]:
    return [Case(inputs, each) for each in arguments or ({},)]


def _convolutions(n: int) -> list[Case]:
    some = {"in_channels": 4, "out_channels": 6, "kernel_size": 3}
    return [
        *_plain(
            some,
            {**some, "stride": 2, "padding": 1, "bias": False},
            {**some, "groups": 2, "dilation": 2, "padding": "same"},
            {**some, "padding": 1, "padding_mode": "reflect"},
            {**some, "padding": "same", "padding_mode": "circular", "kernel_size": 2},
            {**some, "padding": "valid", "padding_mode": "replicate"},
            inputs=(BY_RANK[n],),
        ),
        Case([floats(4, *[7] * n)], some),
    ]


def _transposed(n: int) -> list[Case]:
    some = {"in_channels": 4, "out_channels": 6, "kernel_size": 3}
    strided = {**some, "stride": 2, "padding": 1}
    image = floats(2, 4, *[4] * n)
    return [
        Case([image], some),
        Case([image], {**strided, "output_padding": 1, "groups": 2, "bias": False}),
        Case([image], {**some, "dilation": 2}),
        Case([image], strided, {"output_size": exactly([8] * n)}),
        Case([image, exactly([2, 6, *[7] * n])], strided),
    ]


def _pools(n: int, *arguments: Mapping[str, Any]) -> list[Case]:
    return [
        *_plain(*arguments, inputs=(BY_RANK[n],)),
        Case([floats(4, *[9] * n)], arguments[0]),
    ]


def _max_pools(n: int) -> list[Case]:
    return _pools(
        n,
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True},
        {"kernel_size": 2, "dilation": 2, "ceil_mode": True, "stride": 1},
    )


def _unpools(n: int) -> list[Case]:
    some = [floats(2, 3, *[4] * n), pooled_indices(n, 2)]
    return [
        Case(some, {"kernel_size": 2}),
        Case(some, {"kernel_size": 2, "stride": 2}, {"output_size": exactly([8] * n)}),
        Case([*some, exactly([2, 3, *[8] * n])], {"kernel_size": 2}),
    ]


def _fractional(n: int) -> list[Case]:
    return _plain(
        {"kernel_size": 2, "output_size": 3},
        {"kernel_size": 2, "output_ratio": 0.6, "return_indices": True},
        {"kernel_size": 2, "output_size": 3, "_random_samples": Later(lambda: _samples(n))},
        inputs=(BY_RANK[n],),
    )


def _samples(n: int) -> Tensor:
    return torch.rand(2, 4, n, generator=torch.Generator().manual_seed(1))


def _adaptive(n: int, **more: Any) -> list[Case]:
    return _pools(
        n,
        {"output_size": 3},
        {"output_size": (2,) if n == 1 else (2, None, 3)[:n], **more},
        {"output_size": 1},
    )


def _pads(n: int, **more: Any) -> list[Case]:
    sides = {1: (1, 2), 2: (1, 2, 0, 1), 3: (1, 2, 0, 1, 2, 0)}[n]
    return _plain({"padding": 1, **more}, {"padding": sides, **more}, inputs=(BY_RANK[n],))


def _batch_norms(n: int) -> list[Case]:
    some = {"num_features": 4}
    return [
        *_plain(
            some,
            {**some, "affine": False, "eps": 1e-3},
            {**some, "momentum": None},
            {**some, "track_running_stats": False},
            {**some, "momentum": 0.3, "bias": False},
            inputs=(BY_RANK[n],),
        ),
        *([Case([floats(5, 4)], some)] if n == 1 else []),
    ]


def _instance_norms(n: int) -> list[Case]:
    some = {"num_features": 4}
    return [
        *_plain(
            some,
            {**some, "affine": True},
            {**some, "affine": True, "track_running_stats": True, "momentum": 0.2},
            {**some, "track_running_stats": True, "momentum": None},
            inputs=(BY_RANK[n],),
        ),
        Case([floats(4, *[5] * n)], {**some, "affine": True}),
    ]


def _recurrent(**kinds: Any) -> list[Case]:
    """Of a hidden size of 5; LSTM, which alone has two states, adds its own cases."""
    some = {"input_size": 6, "hidden_size": 5}
    deep = {**some, "num_layers": 2, "bidirectional": True}
    return [
        Case([SEQUENCE], some),
        Case([SEQUENCE], {**deep, "batch_first": True, "bias": False, **kinds}),
        Case([SEQUENCE], {**deep, "dropout": 0.4}),
        Case([floats(5, 6)], some),
        Case([packed([2, 5, 3], 6)], deep),
        Case([packed([5, 4, 1], 6, enforce_sorted=True)], {**some, **kinds}),
    ]


def _with_state(state: Callable[..., Make]) -> list[Case]:
    some = {"input_size": 6, "hidden_size": 5}
    return [
        Case([SEQUENCE, state(1, 3, 5)], some),
        Case([floats(5, 6)], some, {"hx": state(1, 5)}),
        Case([packed([2, 5, 3], 6), state(2, 3, 5)], {**some, "bidirectional": True}),
    ]


def _two_states(*shape: int) -> Make:
    return pair(floats(*shape), floats(*shape))


def _cells(state: Callable[..., Make], **more: Any) -> list[Case]:
    some = {"input_size": 6, "hidden_size": 5}
    return [
        Case([VECTOR], some),
        Case([VECTOR, state(3, 5)], {**some, "bias": False, **more}),
        Case([floats(6)], some, {"hx": state(5)}),
        Case([floats(6)], some),
    ]


def _losses(
    *inputs: Make,
    then: Sequence[Mapping[str, Any]] = (),
    always: Mapping[str, Any] | None = None,
) -> list[Case]:
    kinds = ({}, {"reduction": "sum"}, {"reduction": "none"}, *then)
    return [Case(inputs, {**(always or {}), **arguments}) for arguments in kinds]


def _six() -> Tensor:
    return torch.tensor([0.5, 1.0, 2.0, 0.1, 0.7, 1.3])


CLUSTERS = {"in_features": 8, "n_classes": 12, "cutoffs": [4, 8], "div_value": 2.0}
MHA = {"embed_dim": 8, "num_heads": 2}
FIRST = {**MHA, "batch_first": True}
X, MEMORY = floats(3, 5, 8), floats(3, 4, 8)  # by batch, or by time where it comes first
PADDING = exactly(torch.tensor([[False] * 5, [False] * 4 + [True], [False] * 3 + [True] * 2]))
LAYER = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "dropout": 0.0, "batch_first": True}
TIME_FIRST = {**LAYER, "batch_first": False, "dropout": 0.3}
SMALL = {**LAYER, "num_encoder_layers": 1, "num_decoder_layers": 1}


def _encoder_layer(**more: Any) -> Later:
    return Later(lambda: nn.TransformerEncoderLayer(**{**LAYER, **more}))


def _decoder_layer(**more: Any) -> Later:
    return Later(lambda: nn.TransformerDecoderLayer(**{**LAYER, **more}))


def _norm() -> nn.Module:
    return nn.LayerNorm(8)


_BRANCHES = Later(lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)))


CASES: dict[type[nn.Module], list[Case]] = {
    # containers
    nn.Sequential: [
        Case([IMAGE], positional=[Later(lambda: nn.Conv2d(4, 4, 3)), Later(nn.ReLU)]),
        Case([IMAGE]),
        Case(
            [IMAGE],
            positional=[
                Later(lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5))),
                Later(nn.Flatten),
                Later(lambda: nn.Linear(288, 3)),
            ],
        ),
    ],
    nn.ModuleList: [Case([], {"modules": Later(lambda: [nn.Linear(2, 3), nn.ReLU()])}), Case([])],
    nn.ModuleDict: [Case([], {"modules": Later(lambda: {"a": nn.Linear(2, 3)})}), Case([])],
    nn.ParameterList: [Case([], {"values": Later(lambda: [nn.Parameter(torch.ones(2))])})],
    nn.ParameterDict: [Case([], {"parameters": Later(lambda: {"a": nn.Parameter(torch.ones(2))})})],
    nn.Flatten: _plain({}, {"start_dim": 2}, {"start_dim": 0, "end_dim": 1}),
    nn.Unflatten: _plain(
        {"dim": 1, "unflattened_size": (2, 2)}, {"dim": -1, "unflattened_size": (2, -1)}
    ),
    Residual: [
        Case([IMAGE], {"body": Later(lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)))}),
        Case(
            [IMAGE],
            {
                "body": Later(lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6))),
                "shortcut": Later(lambda: nn.Conv2d(4, 6, 1)),
            },
        ),
    ],
    Gate: [
        Case(
            [IMAGE],
            {
                "body": Later(
                    lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
                )
            },
        )
    ],
    Concat: [Case([IMAGE], {"layers": _BRANCHES}), Case([IMAGE], {"layers": _BRANCHES, "dim": 2})],
    Sum: [Case([IMAGE], {"layers": _BRANCHES})],
    Dense: [
        Case(
            [IMAGE],
            {"layers": Later(lambda: nn.Sequential(nn.Conv2d(4, 3, 1), nn.Conv2d(7, 2, 1)))},
        )
    ],
    StochasticDepth: _plain({"p": 0.5}, {"p": 0.5, "mode": "batch"}, {"p": 0.0}),
    LayerScale: [
        Case([IMAGE], {"num_channels": 4}),
        Case([IMAGE], {"num_channels": 4, "value": 0.5}),
    ],
    Permute: [Case([IMAGE], {"dims": [0, 2, 3, 1]})],
    Pick: [
        Case([pair(IMAGE, pair(IMAGE, IMAGE))], {"index": index}) for index in (0, [1, 0], [-1, 1])
    ],
    Select: [Case([IMAGE], {"dim": 1, "index": -1}), Case([IMAGE], {"dim": 3, "index": 0})],
    # convolution
    nn.Conv1d: _convolutions(1),
    nn.Conv2d: _convolutions(2),
    nn.Conv3d: _convolutions(3)[:-2] + _convolutions(3)[-1:],
    nn.ConvTranspose1d: _transposed(1),
    nn.ConvTranspose2d: _transposed(2),
    nn.ConvTranspose3d: _transposed(3),
    # pooling
    nn.MaxPool1d: _max_pools(1),
    nn.MaxPool2d: _max_pools(2),
    nn.MaxPool3d: _max_pools(3),
    nn.MaxUnpool1d: _unpools(1),
    nn.MaxUnpool2d: _unpools(2),
    nn.MaxUnpool3d: _unpools(3),
    nn.AvgPool1d: _pools(
        1, {"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}
    ),
    **{
        pool: _pools(
            n,
            {"kernel_size": 2},
            {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
            {"kernel_size": 2, "divisor_override": 3, "ceil_mode": True},
        )
        for n, pool in ((2, nn.AvgPool2d), (3, nn.AvgPool3d))
    },
    nn.FractionalMaxPool2d: _fractional(2),
    nn.FractionalMaxPool3d: _fractional(3),
    **{
        pool: _pools(
            n,
            {"norm_type": 2, "kernel_size": 2},
            {"norm_type": 3, "kernel_size": 3, "stride": 2, "ceil_mode": True},
        )
        for n, pool in ((1, nn.LPPool1d), (2, nn.LPPool2d), (3, nn.LPPool3d))
    },
    nn.AdaptiveMaxPool1d: _adaptive(1, return_indices=True),
    nn.AdaptiveMaxPool2d: _adaptive(2, return_indices=True),
    nn.AdaptiveMaxPool3d: _adaptive(3, return_indices=True),
    nn.AdaptiveAvgPool1d: _adaptive(1),
    nn.AdaptiveAvgPool2d: _adaptive(2),
    nn.AdaptiveAvgPool3d: _adaptive(3),
    # padding
    **{getattr(nn, f"ReflectionPad{n}d"): _pads(n) for n in (1, 2, 3)},
    **{getattr(nn, f"ReplicationPad{n}d"): _pads(n) for n in (1, 2, 3)},
    **{getattr(nn, f"CircularPad{n}d"): _pads(n) for n in (1, 2, 3)},
    **{getattr(nn, f"ZeroPad{n}d"): _pads(n) for n in (1, 2, 3)},
    **{getattr(nn, f"ConstantPad{n}d"): _pads(n, value=1.5) for n in (1, 2, 3)},
    # activation
    nn.ELU: _plain({}, {"alpha": 0.5, "inplace": True}),
    nn.Hardshrink: _plain({}, {"lambd": 0.2}),
    nn.Hardsigmoid: _plain({}, {"inplace": True}),
    nn.Hardtanh: _plain({}, {"min_val": -0.3, "max_val": 0.6, "inplace": True}),
    nn.Hardswish: _plain({}, {"inplace": True}),
    nn.LeakyReLU: _plain({}, {"negative_slope": 0.3, "inplace": True}),
    nn.LogSigmoid: _plain(),
    nn.PReLU: _plain({}, {"num_parameters": 4, "init": 0.1}),
    nn.ReLU: _plain({}, {"inplace": True}),
    nn.ReLU6: [Case([floats(2, 4, 9, scale=6)]), Case([floats(2, 9, scale=6)], {"inplace": True})],
    nn.RReLU: _plain({}, {"lower": 0.1, "upper": 0.5, "inplace": True}),
    nn.SELU: _plain({}, {"inplace": True}),
    nn.CELU: _plain({}, {"alpha": 0.5, "inplace": True}),
    nn.GELU: _plain({}, {"approximate": "tanh"}),
    nn.Sigmoid: _plain(),
    nn.SiLU: _plain({}, {"inplace": True}),
    nn.Mish: _plain({}, {"inplace": True}),
    nn.Softplus: _plain({}, {"beta": 2, "threshold": 1}),
    nn.Softshrink: _plain({}, {"lambd": 0.2}),
    nn.Softsign: _plain(),
    nn.Tanh: _plain(),
    nn.Tanhshrink: _plain(),
    nn.Threshold: _plain(
        {"threshold": 0.1, "value": 2.0}, {"threshold": 0.5, "value": -1.0, "inplace": True}
    ),
    nn.GLU: _plain({}, {"dim": 1}),
    nn.Softmin: _plain({"dim": 1}, {"dim": -1}),
    nn.Softmax: _plain({"dim": 1}, {"dim": -1}),
    nn.Softmax2d: [Case([IMAGE]), Case([floats(4, 5, 5)])],
    nn.LogSoftmax: _plain({"dim": 1}, {"dim": -1}),
    # normalization
    nn.BatchNorm1d: _batch_norms(1),
    nn.BatchNorm2d: _batch_norms(2),
    nn.BatchNorm3d: _batch_norms(3),
    nn.SyncBatchNorm: _batch_norms(2),
    nn.GroupNorm: _plain(
        {"num_groups": 2, "num_channels": 4},
        {"num_groups": 4, "num_channels": 4, "affine": False},
        {"num_groups": 1, "num_channels": 4, "eps": 1e-2, "bias": False},
    ),
    nn.InstanceNorm1d: _instance_norms(1),
    nn.InstanceNorm2d: _instance_norms(2),
    nn.InstanceNorm3d: _instance_norms(3),
    nn.LayerNorm: _plain(
        {"normalized_shape": 8},
        {"normalized_shape": (9, 8), "eps": 1e-3, "bias": False},
        {"normalized_shape": 8, "elementwise_affine": False},
    ),
    nn.RMSNorm: _plain(
        {"normalized_shape": 8},
        {"normalized_shape": (9, 8), "eps": 1e-3},
        {"normalized_shape": 8, "elementwise_affine": False},
    ),
    nn.LocalResponseNorm: _plain({"size": 2}, {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0}),
    nn.CrossMapLRN2d: _plain({"size": 3}, {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2}),
    # recurrent
    nn.RNN: _recurrent(nonlinearity="relu") + _with_state(floats),
    nn.LSTM: [
        *_recurrent(proj_size=3),
        *_with_state(_two_states),
        Case(
            [SEQUENCE, pair(floats(1, 3, 2), floats(1, 3, 5))],
            {"input_size": 6, "hidden_size": 5, "proj_size": 2},
        ),
    ],
    nn.GRU: _recurrent() + _with_state(floats),
    nn.RNNCell: _cells(floats, nonlinearity="relu"),
    nn.LSTMCell: _cells(_two_states),
    nn.GRUCell: _cells(floats),
    # attention and transformer
    nn.MultiheadAttention: [
        Case([X, SAME, SAME], FIRST),
        Case([X, SAME, SAME], FIRST, {"key_padding_mask": PADDING, "attn_mask": causal(5)}),
        Case([X, SAME, SAME], FIRST, {"attn_mask": exactly(torch.ones(5, 5).triu(1).bool())}),
        Case([X, MEMORY, MEMORY], {**FIRST, "dropout": 0.3}, {"need_weights": exactly(False)}),
        Case([X, floats(3, 4, 6), floats(3, 4, 7)], {**FIRST, "kdim": 6, "vdim": 7, "bias": False}),
        Case([X, SAME, SAME], {**MHA, "add_bias_kv": True, "add_zero_attn": True}),
        Case([floats(5, 8), SAME, SAME], MHA, {"average_attn_weights": exactly(False)}),
        Case([], FIRST, {"query": X, "key": MEMORY, "value": MEMORY}),
    ],
    nn.TransformerEncoderLayer: [
        Case([X], LAYER),
        Case([X], {**LAYER, "norm_first": True, "activation": F.gelu, "bias": True}),
        Case([X], {**LAYER, "activation": Later(nn.ReLU)}, {"src_key_padding_mask": PADDING}),
        Case([X, causal(5)], {**LAYER, "bias": False}, {"is_causal": exactly(True)}),
        Case([X], TIME_FIRST),
    ],
    nn.TransformerDecoderLayer: [
        Case([X, MEMORY], LAYER),
        Case([X, MEMORY], {**LAYER, "norm_first": True, "activation": "gelu"}),
        Case([X, MEMORY, causal(5)], LAYER, {"tgt_key_padding_mask": PADDING}),
        Case([X, floats(6, 5, 8)], {**TIME_FIRST, "activation": Later(nn.GELU)}),
    ],
    nn.TransformerEncoder: [
        Case([X], {"encoder_layer": _encoder_layer(), "num_layers": 2}),
        Case(
            [X],
            {"encoder_layer": _encoder_layer(), "num_layers": 2, "norm": Later(_norm)},
            {"src_key_padding_mask": PADDING},
        ),
        Case(
            [X, causal(5)],
            {
                "encoder_layer": _encoder_layer(norm_first=True, dropout=0.2),
                "num_layers": 1,
                "enable_nested_tensor": False,
            },
        ),
    ],
    nn.TransformerDecoder: [
        Case([X, MEMORY], {"decoder_layer": _decoder_layer(), "num_layers": 2}),
        Case(
            [X, MEMORY, causal(5)],
            {"decoder_layer": _decoder_layer(dropout=0.2), "num_layers": 1, "norm": Later(_norm)},
        ),
    ],
    nn.Transformer: [
        Case([X, MEMORY], SMALL),
        Case([X, MEMORY], {**SMALL, "dropout": 0.2}, {"tgt_mask": causal(4)}),
        Case([floats(5, 8), floats(4, 8)], SMALL),
    ],
    # linear
    nn.Identity: _plain(),
    nn.Linear: [
        Case([VECTOR], {"in_features": 6, "out_features": 4}),
        Case([SEQUENCE], {"in_features": 6, "out_features": 4, "bias": False}),
        Case([floats(6)], {"in_features": 6, "out_features": 4}),
    ],
    nn.Bilinear: [
        Case([VECTOR, floats(3, 5)], {"in1_features": 6, "in2_features": 5, "out_features": 4}),
        Case(
            [VECTOR, floats(3, 5)],
            {"in1_features": 6, "in2_features": 5, "out_features": 4, "bias": False},
        ),
    ],
    # dropout
    nn.Dropout: _plain({}, {"p": 0.3, "inplace": True}),
    nn.Dropout1d: _plain({}, {"p": 0.3, "inplace": True}, inputs=(SIGNAL,)),
    nn.Dropout2d: _plain({}, {"p": 0.3, "inplace": True}),
    nn.Dropout3d: _plain({}, {"p": 0.3, "inplace": True}, inputs=(VOLUME,)),
    nn.AlphaDropout: _plain({}, {"p": 0.3, "inplace": True}),
    nn.FeatureAlphaDropout: _plain({}, {"p": 0.3, "inplace": True}),
    # sparse
    nn.Embedding: _plain(
        {"num_embeddings": 7, "embedding_dim": 4},
        {"num_embeddings": 7, "embedding_dim": 4, "padding_idx": 2, "max_norm": 1.0},
        {"num_embeddings": 7, "embedding_dim": 4, "scale_grad_by_freq": True},
        {"num_embeddings": 7, "embedding_dim": 4, "sparse": True},
        inputs=(whole(7, 3, 5),),
    ),
    nn.EmbeddingBag: [
        Case([whole(7, 3, 5)], {"num_embeddings": 7, "embedding_dim": 4}),
        Case(
            [whole(7, 9), exactly(torch.tensor([0, 2, 2, 6]))],
            {"num_embeddings": 7, "embedding_dim": 4, "mode": "max", "padding_idx": 1},
        ),
        Case(
            [whole(7, 3, 5)],
            {"num_embeddings": 7, "embedding_dim": 4, "mode": "sum", "max_norm": 1.0},
            {"per_sample_weights": floats(3, 5)},
        ),
        Case(
            [whole(7, 9), exactly(torch.tensor([0, 4, 9]))],
            {
                "num_embeddings": 7,
                "embedding_dim": 4,
                "mode": "sum",
                "sparse": True,
                "include_last_offset": True,
            },
        ),
    ],
    # distance
    nn.CosineSimilarity: _plain({}, {"dim": -1, "eps": 1e-3}, inputs=(VECTOR, VECTOR)),
    nn.PairwiseDistance: _plain(
        {}, {"p": 1.0, "keepdim": True}, {"p": 3.0, "eps": 1e-3}, inputs=(VECTOR, VECTOR)
    ),
    # loss
    nn.L1Loss: _losses(VECTOR, VECTOR),
    nn.MSELoss: _losses(VECTOR, VECTOR),
    nn.CrossEntropyLoss: [
        *_losses(
            VECTOR,
            whole(6, 3),
            then=[{"label_smoothing": 0.1, "ignore_index": 2}, {"weight": Later(_six)}],
        ),
        Case([VECTOR, uniform(3, 6)]),
        Case([floats(2, 6, 4, 4), whole(6, 2, 4, 4)]),
        Case([], {}, {"input": VECTOR, "target": whole(6, 3)}),
    ],
    nn.CTCLoss: _losses(
        log_probabilities(8, 2, 5),
        whole(5, 2, 3, low=1),
        exactly(torch.tensor([8, 6])),
        exactly(torch.tensor([3, 2])),
        then=[{"zero_infinity": True, "blank": 0}],
    ),
    nn.NLLLoss: _losses(
        log_probabilities(3, 6),
        whole(6, 3),
        then=[{"ignore_index": 1, "weight": Later(_six)}],
    ),
    nn.PoissonNLLLoss: [
        *_losses(VECTOR, uniform(3, 6), then=[{"full": True, "eps": 1e-4}]),
        Case([uniform(3, 6), uniform(3, 6)], {"log_input": False}),
        Case([], {}, {"log_input": VECTOR, "target": uniform(3, 6)}),
    ],
    nn.GaussianNLLLoss: _losses(VECTOR, VECTOR, uniform(3, 6), then=[{"full": True, "eps": 1e-3}]),
    nn.KLDivLoss: [
        *_losses(log_probabilities(3, 6), uniform(3, 6), then=[{"reduction": "batchmean"}]),
        Case([log_probabilities(3, 6), log_probabilities(3, 6)], {"log_target": True}),
    ],
    nn.BCELoss: _losses(uniform(3, 6), uniform(3, 6), then=[{"weight": Later(_six)}]),
    nn.BCEWithLogitsLoss: _losses(
        VECTOR,
        uniform(3, 6),
        then=[{"weight": Later(_six), "pos_weight": Later(_six)}],
    ),
    nn.MarginRankingLoss: _losses(floats(5), floats(5), signs(5), then=[{"margin": 0.4}]),
    nn.HingeEmbeddingLoss: _losses(VECTOR, signs(3, 6), then=[{"margin": 0.4}]),
    nn.MultiLabelMarginLoss: _losses(
        floats(2, 4), exactly(torch.tensor([[3, 0, -1, 1], [1, -1, 0, 0]]))
    ),
    nn.HuberLoss: _losses(VECTOR, VECTOR, then=[{"delta": 0.3}]),
    nn.SmoothL1Loss: _losses(VECTOR, VECTOR, then=[{"beta": 0.3}]),
    nn.SoftMarginLoss: _losses(VECTOR, still(signs(3, 6))),
    nn.MultiLabelSoftMarginLoss: _losses(VECTOR, uniform(3, 6), then=[{"weight": Later(_six)}]),
    nn.CosineEmbeddingLoss: _losses(VECTOR, VECTOR, signs(3), then=[{"margin": 0.4}]),
    nn.MultiMarginLoss: _losses(
        VECTOR, whole(6, 3), then=[{"p": 2, "margin": 0.5, "weight": Later(_six)}]
    ),
    nn.TripletMarginLoss: _losses(
        VECTOR, VECTOR, VECTOR, then=[{"margin": 0.5, "p": 1.0, "swap": True}]
    ),
    nn.TripletMarginWithDistanceLoss: _losses(
        VECTOR,
        VECTOR,
        VECTOR,
        then=[
            {"distance_function": F.pairwise_distance, "swap": True},
            {"distance_function": Later(lambda: nn.PairwiseDistance(1.0)), "margin": 0.4},
        ],
    ),
    nn.AdaptiveLogSoftmaxWithLoss: [
        Case([floats(9, 8), whole(12, 9)], CLUSTERS),
        Case([floats(9, 8), whole(3, 9)], {**CLUSTERS, "head_bias": True, "div_value": 1.5}),
        Case([floats(8), exactly(torch.tensor(10))], CLUSTERS),
        Case([], CLUSTERS, {"input_": floats(9, 8), "target_": whole(12, 9)}),
    ],
    # vision
    nn.PixelShuffle: _plain({"upscale_factor": 2}, {"upscale_factor": 1}),
    nn.PixelUnshuffle: _plain({"downscale_factor": 2}, inputs=(floats(2, 3, 8, 8),)),
    nn.ChannelShuffle: _plain({"groups": 2}, {"groups": 4}),
    nn.Upsample: _plain(
        {"scale_factor": 2},
        {"size": (7, 5), "mode": "bilinear", "align_corners": True},
        {"scale_factor": 1.5, "mode": "bicubic", "recompute_scale_factor": True},
        {"scale_factor": 0.5, "mode": "area"},
    ),
    nn.UpsamplingNearest2d: _plain({"scale_factor": 2}, {"size": 5}),
    nn.UpsamplingBilinear2d: _plain({"scale_factor": 2}, {"size": 5}),
    nn.Unfold: _plain(
        {"kernel_size": 3}, {"kernel_size": 2, "dilation": 2, "padding": 1, "stride": 2}
    ),
    nn.Fold: _plain(
        {"output_size": (4, 5), "kernel_size": 2},
        {"output_size": (4, 5), "kernel_size": (2, 2), "dilation": 1, "padding": 0, "stride": 1},
        inputs=(floats(2, 12, 12),),
    ),
    Interpolate: _plain(
        {"scale_factor": 2},
        {"size": (4, 3), "mode": "bilinear", "antialias": True},
        {"size": 5, "mode": "nearest-exact"},
        {"scale_factor": [2.0, 0.5], "mode": "bicubic", "align_corners": False},
    ),
    Pad: _plain(
        {"pad": [1, 2]},
        {"pad": [1, 2, 0, 1, 1, 1], "value": 2.5},
        {"pad": [1, 2, 2, 1], "mode": "reflect"},
        {"pad": [1, 2, 2, 1], "mode": "replicate"},
        {"pad": [1, 2, -1, 1], "mode": "circular"},
    ),
    Normalize: _plain({}, {"p": 1.0, "dim": -1}, {"p": 3.0, "dim": 2, "eps": 1e-3}),
    OneHot: _plain({}, {"num_classes": 9}, inputs=(whole(5, 3, 4),)),
    AffineGrid: [
        Case([floats(2, 2, 3)], {"size": (2, 4, 5, 6)}),
        Case([floats(2, 3, 4)], {"size": (2, 4, 3, 4, 5), "align_corners": True}),
    ],
    GridSample: _plain(
        {},
        {"mode": "nearest", "padding_mode": "border"},
        {"mode": "bicubic", "padding_mode": "reflection", "align_corners": True},
        inputs=(IMAGE, floats(2, 5, 6, 2, scale=0.5)),
    ),
}

if hasattr(nn, "LinearCrossEntropyLoss"):  # newer than the oldest torch supported
    CASES[nn.LinearCrossEntropyLoss] = [
        *_losses(
            VECTOR,
            whole(4, 3),
            then=[{"bias": True, "label_smoothing": 0.1}],
            always={"in_features": 6, "num_classes": 4},
        ),
        Case(
            [floats(3, 6), whole(4, 3, 2)],
            {"in_features": 6, "num_classes": 4, "out_features": (2,), "bias": True},
        ),
    ]
