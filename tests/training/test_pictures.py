"""Filters as pictures, against torchvision's own grid."""

import pytest
import torch
from torchvision.utils import make_grid

from convtrain.training.callbacks.pictures import FILTER_PIXELS, filter_grid


@pytest.mark.parametrize("shape", [(16, 4, 3, 3), (5, 3, 7, 7), (9, 1, 5, 5)])
def test_filters_are_arranged_as_torchvision_does(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    shown = weight if shape[1] == 3 else weight.flatten(0, 1).unsqueeze(1)
    largest = weight.abs().max().item()
    scale = FILTER_PIXELS // shape[-1]
    enlarged = shown.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    expected = make_grid(
        enlarged, nrow=8, normalize=True, value_range=(-largest, largest), padding=4, pad_value=1.0
    )
    found = filter_grid(weight)
    assert found.dtype == torch.uint8
    torch.testing.assert_close(
        found.float().expand_as(expected) / 255, expected, atol=0.5 / 255 + 1e-6, rtol=0
    )
