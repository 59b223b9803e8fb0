"""The filters of a network's first convolution, read from a checkpoint."""

from pathlib import Path

import numpy as np

from convtrain.errors import CorruptDataError, MissingDataError

MOST = 64
SHOWN_CHANNELS = (1, 3)


def read_filters(checkpoint: Path) -> tuple[str, np.ndarray] | None:
    """Return the layer's name and its first filters, float32 (N, channels, height, width).

    None if the checkpoint cannot be read, or if the first convolution has another number of input
    channels than 1 (grey) or 3 (colours), or filters of one pixel.
    """
    from convtrain.training.checkpoint_file import tensors_of  # imports torch

    try:
        state = tensors_of(checkpoint)
    except (CorruptDataError, MissingDataError):
        return None
    for name, weight in state.items():
        if weight.ndim == 4:
            is_shown = weight.shape[1] in SHOWN_CHANNELS and min(weight.shape[2:]) > 1
            filters: np.ndarray = weight[:MOST].float().numpy()
            layer = name.removeprefix("model.").removesuffix(".weight")
            return (layer, filters) if is_shown and np.isfinite(filters).all() else None
    return None


def as_pictures(filters: np.ndarray) -> list[np.ndarray]:
    """Return filters as uint8 (3, height, width), all on one scale.

    A filter of one channel is blue where it is negative, white at zero and red where it is
    positive. In one of three channels, grey is zero.
    """
    scaled = filters / max(float(np.abs(filters).max()), 1e-12)
    if filters.shape[1] == 1:
        towards = np.where(scaled >= 0, *(np.array(c).reshape(3, 1, 1) for c in (RED, BLUE)))
        colours = 255 + (towards - 255) * np.abs(scaled)
    else:
        colours = (scaled + 1) * 127.5
    return list(colours.round().astype(np.uint8))


RED, BLUE = (178, 24, 43), (33, 102, 172)
"""The ends of ColorBrewer's RdBu, which colour-blind readers can tell apart."""
