"""Linear layers: ``input @ weight.T + bias``."""

from torch import nn
from torch.nn import functional as F

from convtrain.layers.entry import Entry, by_position, features


def identity(input):
    return input


LAYERS = (
    Entry(nn.Identity, identity),
    Entry(
        nn.Linear, by_position(F.linear, "input", "weight", "bias"), infer={"in_features": features}
    ),
    Entry(
        nn.Bilinear,
        by_position(F.bilinear, "input1", "input2", "weight", "bias"),
        infer={"in1_features": features},
    ),
)
