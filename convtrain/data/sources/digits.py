"""Handwritten digits that the package contains; digits.txt names their source and licence."""

from pathlib import Path

import numpy as np
import torch

from convtrain.config.data_sections import Fold
from convtrain.data.images import Images, Splits, divide

FILE = Path(__file__).with_suffix(".npz")


def load(*, val_fraction: float | Fold, test_fraction: float, split_seed: int) -> Splits:
    """Return 1,797 digits of 8x8 pixels, their 17 grey levels scaled to 0-255."""
    with np.load(FILE, allow_pickle=False) as stored:
        grey_levels, labels = stored["grey_levels"], stored["labels"]
    pixels = torch.from_numpy(np.round(grey_levels * (255 / 16)).astype(np.uint8))
    everything = Images(pixels.view(-1, 1, 8, 8), torch.from_numpy(labels).long())
    return divide(
        everything, val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed
    )
