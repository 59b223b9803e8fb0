"""A trained model with its classes and its preprocessing."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytorch_lightning.plugins import Precision
from torch import Tensor, nn

from convtrain.config.schema import Config
from convtrain.data.file_batches import decode_batches
from convtrain.data.workers import FORKS
from convtrain.errors import ConfigError, CorruptDataError, MissingDataError
from convtrain.run.directory import Run
from convtrain.training.chosen_metrics import probabilities_of
from convtrain.use.predictions import Predictions
from convtrain.use.preprocessing import Picture, Preprocessing, images_at

Source = Path | str | Picture
"""A path of an image file or of a folder, or an image in memory."""


class Trained:
    """A trained model in evaluation mode, with its classes and its preprocessing.

    Attributes:
        run: the run's directory.
        config: the run's configuration, on the chosen device and in the chosen style.
        checkpoint: the file that the weights are from.
        model: maps normalised images, float32 (N, channels, height, width), to logits.
        classes: the name of each class, in the order of the logits.
        multi_label: an image has any number of labels.
        preprocessing: makes the model's input of files and images, as in training.
        device: where the model computes.
    """

    def __init__(
        self,
        run: Run,
        config: Config,
        checkpoint: Path,
        model: nn.Module,
        *,
        classes: list[str],
        multi_label: bool,
        channels_last: bool,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.run, self.config, self.checkpoint, self.model = run, config, checkpoint, model
        self.classes, self.multi_label, self.device = classes, multi_label, device
        self.preprocessing = Preprocessing(config.data)
        self._channels_last, self._precision = channels_last, precision

    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits (N, classes), on :attr:`device`, as validation and test compute them.

        Args:
            pixels: uint8, or floats in 0-1, of shape (N, channels, height, width).
        """
        images = self.preprocessing.normalise(pixels.to(self.device, non_blocking=True))
        images = self._precision.convert_input(images)
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        context: AbstractContextManager[None] = self._precision.forward_context()
        with torch.inference_mode(), context:
            logits: Tensor = self.model(images)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of logits (N, classes), at least in float32, on the CPU.

        A ConfigError says that the model does not classify.
        """
        if logits.ndim != 2 or logits.shape[1] != len(self.classes):
            raise ConfigError(
                f"{self.run.path}: the model's output of an image has shape "
                f"{tuple(logits.shape[1:])}, not a logit for each of the {len(self.classes)} "
                f"classes, so it predicts none"
            )
        return probabilities_of(logits, multi_label=self.multi_label).cpu()

    def predict(
        self,
        images: Source | Iterable[Source],
        *,
        topk: int = 5,
        batch_size: int | None = None,
    ) -> Predictions:
        """Predict the classes of images.

        Example::

            trained = convtrain.load("logs/runs/lenet/RUN")
            found = trained.predict("photographs/")
            found.labels, found.probabilities, found.top

        Args:
            images: the path of a file or of a folder, a Pillow image, an array or a tensor, of one
                image or a batch (see :meth:`Preprocessing.from_image`), or several of these.
            topk: the number of classes in :attr:`Predictions.top`.
            batch_size: images that the model gets at once; None is that of the run's evaluation.

        Raises:
            MissingDataError: a file is missing, or there is no image.
            CorruptDataError: an image cannot be used; the message names it.
        """
        size = self.config.data.eval_batch_size if batch_size is None else batch_size
        if size < 1 or topk < 1:
            raise ConfigError(f"batch_size={size}, topk={topk}: choose 1 or more")
        found = [
            self.probabilities(self.logits(pixels))
            for pixels in _batches(self._read(images, size), size)
        ]
        if not found:
            raise MissingDataError("there is no image to predict; give a file or an image")
        return Predictions(torch.cat(found), self.classes, self.multi_label, topk)

    def _read(self, images: Source | Iterable[Source], size: int) -> Iterator[Tensor]:
        """Yield pixels (n, channels, height, width)."""
        if isinstance(images, str | Path):
            yield from self._decode(images_at(images), size)
        elif isinstance(images, Image.Image | np.ndarray | Tensor):
            yield self.preprocessing.from_image(images)
        elif isinstance(images, Iterable):
            for are_paths, several in groupby(enumerate(images), key=_is_path):
                if are_paths:
                    yield from self._decode((p for _, at in several for p in images_at(at)), size)
                    continue
                for index, each in several:
                    try:
                        yield from self._read(each, size)
                    except CorruptDataError as error:
                        raise CorruptDataError(f"image {index}: {error}") from None
        else:
            raise ConfigError(
                f"images is a {type(images).__name__}; give a path, a Pillow image, an array or a "
                f"tensor, or several of them"
            )

    def _decode(self, paths: Iterable[str], size: int) -> Iterator[Tensor]:
        # Without fork, processes would run the script again that calls predict.
        workers = None if FORKS else 0
        rules = self.preprocessing.file_rules
        for batch in decode_batches(paths, rules, batch_size=size, workers=workers):
            for index, reason in batch.refused.items():
                raise CorruptDataError(f"{batch.paths[index]}: {reason}")
            yield batch.pixels.clone()  # the next batch has the same memory


def _is_path(numbered: tuple[int, object]) -> bool:
    return isinstance(numbered[1], str | Path)


def _batches(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Regroup pixels into batches; uint8 and floats do not share one."""
    waiting: list[Tensor] = []

    def count() -> int:
        return sum(map(len, waiting))

    for part in parts:
        for piece in part.split(size):
            if waiting and waiting[0].dtype != piece.dtype:
                yield torch.cat(waiting)
                waiting = []
            waiting.append(piece)
            while count() >= size:
                joined = torch.cat(waiting)
                yield joined[:size]
                waiting = [joined[size:]] if len(joined) > size else []
    if waiting:
        yield torch.cat(waiting)
