"""Calibration: whether predictions of 80 % probability are right 80 % of the time."""

from typing import NamedTuple

import numpy as np

BINS = 15  # as torchmetrics' CalibrationError, which `metrics=calibration` chooses


class Calibration(NamedTuple):
    """The bins of a reliability diagram that hold images, and the expected calibration error.

    Attributes:
        confidence: mean probability of the predicted class, float (B,).
        accuracy: fraction of right predictions (B,).
        count: images (B,).
        error: mean distance of confidence and accuracy, weighted by the images (ECE; Guo et al.,
            2017, https://arxiv.org/abs/1706.04599).
        overconfident: mean confidence minus accuracy of all images.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    error: float
    overconfident: float


def calibration_of(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> Calibration:
    """Sort images into bins of equal width by the probability of their predicted class.

    Args:
        probability: of the predicted class, float (N,); at least one image.
        right: whether the prediction is right, bool (N,).
    """
    places = np.ceil(probability.astype(np.float64) * bins).astype(int).clip(1, bins) - 1
    count = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, weights, bins) for weights in (probability, right))
    held = count > 0
    confidence, accuracy = (total[held] / count[held] for total in sums)
    count = count[held]
    gap = confidence - accuracy
    error, mean = (float((each * count).sum() / count.sum()) for each in (np.abs(gap), gap))
    return Calibration(confidence, accuracy, count, error, mean)
