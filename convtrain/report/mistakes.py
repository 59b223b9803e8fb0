"""The most confident mistakes of a test, and a file of their pictures.

The page of a run shows them when the dataset is out of reach, so the end of the run stores them.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from convtrain.process.atomic import atomic_write

if TYPE_CHECKING:
    from convtrain.data.images import Images

MOST = 24
MOST_PIXELS = 64
"""The longest side that is stored; squares of pixels of a larger picture become their mean."""


def most_confident(wrong: np.ndarray, probability: np.ndarray, most: int = MOST) -> np.ndarray:
    """Return the rows of the wrong predictions with the highest probability, highest first.

    Args:
        wrong: bool (N,).
        probability: of the predicted class, float (N,).
    """
    rows = np.flatnonzero(wrong)
    return rows[np.argsort(-probability[rows], kind="stable")[:most]]


def store_pictures(images: "Images", indices: np.ndarray, path: Path) -> None:
    """Write pictures of some images, int64 (n,) in their split, for :func:`read_pictures`."""
    import torch

    pixels = images.read(torch.from_numpy(indices).to(images.indexed_on)).cpu().numpy()
    content = io.BytesIO()
    np.savez_compressed(content, index=indices, pixels=_at_most(pixels, MOST_PIXELS))
    with atomic_write(path) as writer:
        writer.write(content.getbuffer())


def read_pictures(path: Path) -> dict[int, np.ndarray]:
    """Return stored pictures, uint8 (channels, height, width), by the index of the image."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(zip(stored["index"].tolist(), stored["pixels"], strict=True))
    except (OSError, ValueError, KeyError, BadZipFile):
        return {}


def _at_most(pixels: np.ndarray, longest: int) -> np.ndarray:
    """Return uint8 pictures (N, C, height, width) whose sides are at most ``longest``."""
    side = -(-max(pixels.shape[2:]) // longest)
    if side == 1:
        return pixels
    height, width = (max(length // side, 1) for length in pixels.shape[2:])
    kept = pixels[:, :, : height * side, : width * side]
    squares = kept.reshape(*kept.shape[:2], height, -1, width, kept.shape[3] // width)
    return np.asarray(squares.mean((3, 5)).round().astype(np.uint8))
