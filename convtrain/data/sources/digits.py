"""scikit-learn's handwritten digits, from its installed files."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch

from convtrain.data.images import Images, Splits, divide


def load(*, val_fraction: float, test_fraction: float, split_seed: int) -> Splits:
    """Return 1,797 digits of 8x8 pixels, their 17 grey levels scaled to 0-255."""
    rows = _read()
    pixels = torch.from_numpy(np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8))
    everything = Images(pixels.view(-1, 1, 8, 8), torch.from_numpy(rows[:, -1]).long())
    return divide(
        everything, val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed
    )


def _read() -> np.ndarray:
    """Return rows of 64 grey levels and a label, without the slow import of scikit-learn."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt") as file:
                return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    return np.column_stack(load_digits(return_X_y=True))
