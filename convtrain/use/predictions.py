"""What a trained model says of images."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

PRESENT = 0.5  # probability above which a label is present


@dataclass(frozen=True)
class Predictions:
    """The probabilities of the classes of several images, in the order in which they were given.

    Attributes:
        probabilities: float (N, classes) on the CPU. Those of an image add up to 1, unless it has
            any number of labels.
        classes: the name of each class.
        multi_label: an image has any number of labels, which are present above a probability of
            0.5.
        topk: the number of classes in :attr:`top`.
    """

    probabilities: Tensor
    classes: Sequence[str]
    multi_label: bool = False
    topk: int = 5

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def indices(self) -> Tensor:
        """The index of the most probable class of each image, int64 (N,)."""
        return self.probabilities.argmax(1)

    @property
    def labels(self) -> list[str] | list[list[str]]:
        """The most probable class of each image; with any number of labels, those present."""
        if not self.multi_label:
            return [self.classes[index] for index in self.indices.tolist()]
        return [[name for name, _ in row] for row in self.present]

    @property
    def present(self) -> list[list[tuple[str, float]]]:
        """The labels of each image with their probabilities."""
        if not self.multi_label:
            values, indices = self.probabilities.max(1)
            pairs = zip(indices.tolist(), values.tolist(), strict=True)
            return [[(self.classes[index], value)] for index, value in pairs]
        return [
            [(name, p) for name, p in zip(self.classes, row, strict=True) if p > PRESENT]
            for row in self.probabilities.tolist()
        ]

    @property
    def top(self) -> list[list[tuple[str, float]]]:
        """The most probable classes of each image with their probabilities, highest first."""
        values, indices = self.probabilities.topk(min(self.topk, len(self.classes)), dim=1)
        return [
            [(self.classes[index], value) for index, value in zip(*row, strict=True)]
            for row in zip(indices.tolist(), values.tolist(), strict=True)
        ]
