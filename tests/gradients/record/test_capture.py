"""What is recorded of the layers' outputs."""

import pytest
import torch
from torch import nn

from convtrain.gradients.record.capture import Capture
from convtrain.models.functional import functionalize


@pytest.mark.parametrize("style", ["functional", "nn"])
def test_every_layer_has_its_output_and_a_container_none(style: str) -> None:
    """An inner layer's output is freed before the next one, which Python may put in its place."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.5, batch_first=True)
    plain = nn.Sequential(encoder, nn.Linear(16, 2))
    model = functionalize(plain) if style == "functional" else plain
    inner = (
        "self_attn", "dropout1", "norm1", "linear1", "dropout", "linear2", "dropout2", "norm2",
    )  # fmt: skip
    for _ in range(5):
        images = torch.randn(3, 5, 16)
        capture = Capture(model, images)
        model(images).sum().backward()
        record = capture.finish()
        assert record is not None
        assert record.names == ["input", *(f"0.{name}" for name in inner), "1"]
