"""Predict the classes of any number of image files, in constant memory."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from torch import Tensor

from convtrain.data.file_batches import decode_batches
from convtrain.use.predictions import Predictions
from convtrain.use.trained import Trained

Named: TypeAlias = list[tuple[str, float]]
"""Classes and their probabilities."""


class FilePrediction(NamedTuple):
    """What a model says of a file; it is empty if the file cannot be used."""

    path: str
    labels: Named  # the most probable class; with any number of labels, those present
    top: Named  # the most probable classes, highest first
    error: str = ""

    @property
    def others(self) -> Named:
        """The most probable classes that are no labels."""
        return [each for each in self.top if each not in self.labels]


def predict_files(
    trained: Trained,
    paths: Iterable[str],
    *,
    topk: int = 5,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[list[FilePrediction]]:
    """Yield the predictions of files in their order, a batch at a time.

    Args:
        paths: is read a few batches ahead.
        topk: the number of classes in :attr:`FilePrediction.top`.
        batch_size: files that the model gets at once; None is that of the run's evaluation, which
            gives the same bits as its test. Another size may change the last bits.
        workers: processes that decode; None is one for each core.

    Raises:
        ConfigError: the model does not classify, or takes no images of 1 or 3 channels.
        TrainingError: a process that decodes was killed.
    """
    rules = trained.preprocessing.file_rules
    size = batch_size or trained.config.data.eval_batch_size
    for batch in decode_batches(paths, rules, batch_size=size, workers=workers):
        found = iter(_predict(trained, batch.pixels, topk) if len(batch.pixels) else ())
        yield [
            FilePrediction(path, [], [], batch.refused[index])
            if index in batch.refused
            else FilePrediction(path, *next(found))
            for index, path in enumerate(batch.paths)
        ]


def _predict(trained: Trained, pixels: Tensor, topk: int) -> Iterable[tuple[Named, Named]]:
    """Return the labels of each image, and the most probable classes."""
    probabilities = trained.probabilities(trained.logits(pixels))
    found = Predictions(probabilities, trained.classes, trained.multi_label, topk)
    return zip(found.present, found.top, strict=True)
