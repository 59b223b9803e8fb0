"""Comparing what an exported file computes with what its run computes."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convtrain.assembly import make_data
from convtrain.command.job_config import config_of
from convtrain.errors import ConvtrainError, first_line
from convtrain.use.formats.portable import Portable, Predict
from convtrain.use.predictions import PRESENT
from convtrain.use.trained import Trained

IMAGES = 64
BATCHES = (1, 3, 60)  # images given at once
OTHER_SIZES = ((1.5, 2.25), (0.75, 0.5), (3.0, 1.0))  # of height and width, against the model's
MAX_DIFFERENCE = 1e-4  # of logits, against the largest one or 1; kernels round differently


class Sample(NamedTuple):
    """Images to compare: as the file takes them, and as the model does."""

    given: Tensor  # uint8 (n, channels, height, width)
    sized: Tensor  # the same images in the model's size


class Agreement(NamedTuple):
    """How closely a file agrees with its run."""

    images: int
    batches: tuple[int, ...]
    logits: float  # the largest difference
    probabilities: float | None  # the largest difference; None for outputs that are no classes
    same_classes: int | None  # images with the same predicted classes
    allowed: float  # difference of the logits

    @property
    def is_close(self) -> bool:
        return self.logits <= self.allowed


def images_to_compare(trained: Trained) -> tuple[Tensor, str]:
    """Return images of the model's size, and where they are from.

    They are from the run's own test data if this machine can read it, and otherwise random.
    """
    try:
        config = config_of(trained.run)
        if getattr(config.data, "download", False):
            data = config.data.model_copy(update={"download": False})
            config = config.model_copy(update={"data": data})
        splits = make_data(config).splits
        images = next(part for part in (splits.test, splits.val, splits.train) if len(part))
        chosen = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).long()
        name = {id(splits.test): splits.tested, id(splits.val): "validation"}.get(id(images))
        return images.read(chosen.to(images.indexed_on)).cpu(), f"{name or 'training'} images"
    except Exception as error:  # a dataset of the user's own raises anything
        generator = torch.Generator().manual_seed(0)
        shape = (IMAGES, *trained.preprocessing.shape)
        noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return noise, f"images of noise (the run's data cannot be read: {first_line(error)})"


def make_samples(portable: Portable, images: Tensor) -> list[Sample]:
    """Divide images into batches, with some of other sizes if the file resizes."""
    sizes = _sizes(len(images))
    samples = [Sample(part, part) for part in images.split(sizes)]
    if portable.model.resize is not None:
        samples += [_in_another_size(portable, images[:3], *scales) for scales in OTHER_SIZES]
    return samples


def _sizes(count: int) -> list[int]:
    sizes = [min(size, count - sum(BATCHES[:index])) for index, size in enumerate(BATCHES)]
    return [size for size in sizes if size > 0]


def _in_another_size(portable: Portable, images: Tensor, rows: float, columns: float) -> Sample:
    """Enlarge or reduce images; Pillow, as in training, brings them back to the model's size."""
    height, width = (max(round(images.shape[2 + i] * s), 1) for i, s in enumerate((rows, columns)))
    planes = [torch.stack([_bicubic(plane, height, width) for plane in image]) for image in images]
    given = torch.stack(planes)
    resized = [portable.trained.preprocessing.from_image(image) for image in given]
    return Sample(given, torch.cat(resized))


def _bicubic(plane: Tensor, height: int, width: int) -> Tensor:
    picture = Image.fromarray(plane.numpy()).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture))


def compare(portable: Portable, predict: Predict, samples: Sequence[Sample]) -> Agreement:
    """Compare a file's logits with those of the model in memory.

    Raises:
        ConvtrainError: the run's own logits are not finite.
    """
    expected = [portable.logits(sample.sized) for sample in samples]
    with torch.no_grad():
        found = [predict(sample.given) for sample in samples]
    trained = portable.trained
    if not all(logits.isfinite().all() for logits in expected):
        raise ConvtrainError(
            f"{trained.checkpoint}: its logits are not finite, so that an export cannot be "
            f"compared; choose another --checkpoint"
        )
    largest = max(float(logits.abs().max()) for logits in expected)
    probabilities = same = None
    if all(logits.ndim == 2 for logits in expected):
        said = [[trained.probabilities(each) for each in logits] for logits in (expected, found)]
        probabilities, same = _largest(*said), sum(map(partial(_same, trained), *said))
    return Agreement(
        images=sum(len(sample.given) for sample in samples),
        batches=tuple(len(sample.given) for sample in samples),
        logits=_largest(expected, found),
        probabilities=probabilities,
        same_classes=same,
        allowed=MAX_DIFFERENCE * max(largest, 1.0),
    )


def _largest(expected: Iterable[Tensor], found: Iterable[Tensor]) -> float:
    """Return the largest difference; infinity where a value is NaN or a shape is another."""
    differences = []
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            return float("inf")
        difference = (one.double() - other.double()).abs().nan_to_num(nan=float("inf"))
        differences.append(float(difference.max()))
    return max(differences)


def _same(trained: Trained, expected: Tensor, found: Tensor) -> int:
    """Return the number of images with the same predicted classes, given the probabilities."""
    if trained.multi_label:
        return int(((expected > PRESENT) == (found > PRESENT)).all(1).sum())
    return int((expected.argmax(1) == found.argmax(1)).sum())
