"""Numbers by class: the confusion matrix, precision, recall and F1, and what is confused most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class ClassCounts:
    """For each class (C): images of it that were found, missed, and others taken for it."""

    names: Sequence[str]
    found: np.ndarray  # true positives, int64 (C,)
    missed: np.ndarray  # false negatives
    mistaken: np.ndarray  # false positives

    @property
    def support(self) -> np.ndarray:
        """How many images each class has."""
        return self.found + self.missed

    @property
    def precision(self) -> np.ndarray:
        """Which part of the images predicted as this class belong to it; NaN if none was."""
        return _ratio(self.found, self.found + self.mistaken)

    @property
    def recall(self) -> np.ndarray:
        """Which part of the images of this class were predicted as it; NaN if it has none."""
        return _ratio(self.found, self.support)

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall; NaN where both are undefined."""
        return _ratio(2 * self.found, 2 * self.found + self.missed + self.mistaken)

    def worst(self) -> list[int]:
        """Return the classes that have images, those of the lowest F1 first."""
        order = np.argsort(self.f1, kind="stable")
        return [int(index) for index in order if self.support[index]]


class Confused(NamedTuple):
    """How many images of one class were predicted as another."""

    true: int
    predicted: int
    images: int
    part: float  # of the images of the true class


def confusion_of(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how often each true class (down) was predicted as each class: int64 (C, C)."""
    cells = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def counts_of(confusion: np.ndarray, names: Sequence[str]) -> ClassCounts:
    found = confusion.diagonal()
    return ClassCounts(names, found, confusion.sum(1) - found, confusion.sum(0) - found)


def label_counts(targets: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> ClassCounts:
    """Return the counts of images with any number of labels; bool (N, C)."""
    return ClassCounts(
        names,
        (targets & predicted).sum(0),
        (targets & ~predicted).sum(0),
        (~targets & predicted).sum(0),
    )


def most_confused(confusion: np.ndarray, most: int) -> list[Confused]:
    """Return the pairs of different classes that are confused most often."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (divmod(int(cell), len(confusion)) for cell in order)
    of_class = confusion.sum(1)
    return [
        Confused(true, predicted, int(wrong[true, predicted]),
                 float(wrong[true, predicted] / of_class[true]))
        for true, predicted in pairs
        if wrong[true, predicted]
    ]  # fmt: skip


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
