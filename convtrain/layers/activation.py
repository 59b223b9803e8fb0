"""Non-linear activations. ``F`` has most of them under the same names."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, by_position, check_rank


def gelu(input, *, approximate):
    return F.gelu(input, approximate=approximate)


def softmax2d(input):
    """Compute the softmax over channels at each pixel; ValueError unless the input is 3d or 4d."""
    check_rank(input, 3, 4)
    return F.softmax(input, -3)


LAYERS = (
    Entry(nn.ELU, F.elu),
    Entry(nn.Hardshrink, by_position(F.hardshrink, "input", "lambd")),
    Entry(nn.Hardsigmoid, F.hardsigmoid),
    Entry(nn.Hardtanh, F.hardtanh),
    Entry(nn.Hardswish, F.hardswish),
    Entry(nn.LeakyReLU, F.leaky_relu),
    Entry(nn.LogSigmoid, by_position(F.logsigmoid, "input")),
    Entry(nn.PReLU, by_position(F.prelu, "input", "weight")),
    Entry(nn.ReLU, F.relu),
    Entry(nn.ReLU6, F.relu6),
    Entry(nn.RReLU, F.rrelu),
    Entry(nn.SELU, F.selu),
    Entry(nn.CELU, F.celu),
    Entry(nn.GELU, gelu),
    Entry(nn.Sigmoid, F.sigmoid),
    Entry(nn.SiLU, F.silu),
    Entry(nn.Mish, F.mish),
    Entry(nn.Softplus, by_position(F.softplus, "input", "beta", "threshold")),
    Entry(nn.Softshrink, by_position(F.softshrink, "input", "lambd")),
    Entry(nn.Softsign, F.softsign),
    Entry(nn.Tanh, F.tanh),
    Entry(nn.Tanhshrink, F.tanhshrink),
    Entry(nn.Threshold, F.threshold),
    Entry(nn.GLU, F.glu),
    Entry(nn.Softmin, F.softmin),
    Entry(nn.Softmax, F.softmax),
    Entry(nn.Softmax2d, softmax2d),
    Entry(nn.LogSoftmax, F.log_softmax),
)
