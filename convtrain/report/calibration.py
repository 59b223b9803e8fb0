"""Calibration: whether predictions of 80 % probability are right 80 % of the time."""

from typing import NamedTuple

import numpy as np

BINS = 15  # as torchmetrics' CalibrationError, which `metrics=calibration` chooses


class Calibration(NamedTuple):
    """The bins of a reliability diagram, and the expected calibration error.

    Attributes:
        confidence: mean probability of the predicted class, float (B,); NaN without images.
        accuracy: fraction of right predictions (B,); NaN without images.
        images: their number (B,).
        error: mean distance of confidence and accuracy, weighted by the images (ECE; Guo et al.,
            2017, https://arxiv.org/abs/1706.04599).
        overconfident: mean confidence minus accuracy of all images.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray
    error: float
    overconfident: float


def calibration_of(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> Calibration:
    """Sort images into bins of equal width by the probability of their predicted class.

    Args:
        probability: of the predicted class, float (N,); at least one image.
        right: whether the prediction is right, bool (N,).
    """
    places = np.ceil(probability.astype(np.float64) * bins).astype(int).clip(1, bins) - 1
    images = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, weights, bins) for weights in (probability, right))
    confidence, accuracy = (
        np.divide(total, images, out=np.full(bins, np.nan), where=images > 0) for total in sums
    )
    gap = np.nan_to_num(confidence - accuracy)
    error, mean = (float(each @ images / images.sum()) for each in (np.abs(gap), gap))
    return Calibration(confidence, accuracy, images, error, mean)
