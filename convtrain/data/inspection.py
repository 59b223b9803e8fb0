"""What is in the data of a run: classes, files, sizes, repeated images, mean and deviation.

The images are looked at once, as an evaluation sees them, and none is kept. docs/data.md shows the
tables that ``convtrain check --build`` prints of these facts.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, compress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from convtrain.config.data_sections import GIB, ImageFiles
from convtrain.config.folders import SPLITS
from convtrain.config.groups.data import Data
from convtrain.data.cache import cache_folder, refuse_too_large
from convtrain.data.crops import stored_size
from convtrain.data.decoding import Rules
from convtrain.data.file_blocks import complaint
from convtrain.data.file_inspection import (
    FileFacts,
    Progress,
    fingerprint,
    level_sums,
    look_at_files,
)
from convtrain.data.images import BLOCK_BYTES, Images, Splits
from convtrain.data.labelled_files import Division, LabelledFiles, divide_files, named_splits
from convtrain.data.sized_pixels import SIZE_BYTES
from convtrain.errors import ConfigError, ConvtrainError, CorruptDataError

MAX_INSPECTED = 20_000  # files; of more, a sample is looked at
SAMPLE = 2_000
MAX_PAIRS = 3  # of repeated images that are named
Kept = Literal["in memory", "in the cache", "in the files", "nowhere"]
CONTRARY = "repeated with another label"


class Repeated(NamedTuple):
    """Images with the same size and pixels as another one."""

    what: str
    images: int
    pairs: list[tuple[int, int]]  # indices, the first ones


class Seen(NamedTuple):
    """The split and the label, in words, of each image that was looked at."""

    splits: list[str]
    labels: list[str]


class Files(NamedTuple):
    """What was found in image files."""

    paths: list[Path]  # those that were looked at
    facts: FileFacts
    left_out: Sequence[tuple[str, Sequence[Path]]]
    stored_bytes: int  # of all decoded images, estimated from a sample
    kept: Kept
    error: ConvtrainError | None  # that a training raises of the files


@dataclass(frozen=True)
class Inspection:
    """Facts about the data of a run."""

    splits: Splits  # of image files without their pixels
    images: int
    counts: dict[str, Tensor]  # images of each class, int64 (classes,), by split
    classes: list[str]
    seen: Seen
    repeated: list[Repeated]  # none are looked for in a sample
    mean: list[float]  # of each channel of the training images, in 0-1; without any, NaN
    std: list[float]
    files: Files | None = None

    @property
    def is_sample(self) -> bool:
        return len(self.seen.splits) < self.images


def inspect_data(
    data: Data, *, every_image: bool = False, progress: Progress = lambda *_: None
) -> Inspection:
    """Look at the images of a run.

    Args:
        every_image: look at all files, however many there are.

    Raises:
        ConvtrainError: the data cannot be read. Files that cannot be used are facts, not errors.
    """
    if isinstance(data, ImageFiles):
        return _inspect_files(data, every_image, progress)
    splits = data.build()
    assert isinstance(splits, Splits)
    sampled = {name: each.sample(data.limit, data.split_seed) for name, each in _parts(splits)}
    total = sum(map(len, sampled.values()))
    fingerprints, sums = list[int](), np.zeros((2, data.shape[0]), dtype=np.int64)
    for name, images in sampled.items():
        for pixels in _blocks(images, data.shape):
            fingerprints += [fingerprint(image) for image in pixels]
            if name == "train":
                sums += level_sums(pixels)
            progress(len(fingerprints), total)
    classes = splits.classes or data.class_names
    seen = Seen(
        [name for name, images in sampled.items() for _ in range(len(images))],
        _words(torch.cat([images.labels for images in sampled.values()]), classes),
    )
    mean, std = _moments(sums, len(sampled["train"]) * math.prod(data.shape[1:]))
    return Inspection(
        splits=splits,
        images=total,
        counts={name: _counts(images.labels, len(classes)) for name, images in sampled.items()},
        classes=classes,
        seen=seen,
        repeated=find_repeated(fingerprints, seen),
        mean=mean,
        std=std,
    )


def _inspect_files(data: ImageFiles, every_image: bool, progress: Progress) -> Inspection:
    found: list[tuple[LabelledFiles, Rules]] = []

    def without_pixels(
        listed: LabelledFiles, rules: Rules, division: Division, **_: object
    ) -> Splits:
        divided = divide_files(listed, division)
        found.append((divided, rules))
        zero = torch.zeros(1, dtype=torch.uint8)  # expanded to all pixels, without memory
        return named_splits(
            {
                name: Images(zero.expand(len(part), *rules.shape), divided.labels[part])
                for name, part in divided.splits.items()
            }
        )

    splits = data.build(read=without_pixels)
    ((divided, rules),) = found
    count = len(divided.files)
    chosen = torch.arange(count)
    if count > MAX_INSPECTED and not every_image:
        chosen = torch.linspace(0, count - 1, SAMPLE, dtype=torch.float64).long()
    paths = [divided.files[index] for index in chosen.tolist()]
    facts = look_at_files(paths, rules, progress)
    split_of = np.empty(count, dtype=object)
    for name, part in divided.splits.items():
        split_of[part.numpy()] = name
    seen = Seen(split_of[chosen.numpy()].tolist(), _words(divided.labels[chosen], data.class_names))
    used = np.array([kind is not None for kind in facts.kinds])
    trained = used & (np.array(seen.splits) == "train")
    levels = int(trained.sum()) * math.prod(rules.shape[1:])
    mean, std = _moments(facts.sums[trained].sum(0), levels)
    size = _stored_bytes(rules, facts.sizes[used], count)
    kept, error = _storage(data, size)
    if facts.refused:
        refused = [(paths[place], reason) for place, reason in facts.refused.items()]
        error = error or CorruptDataError(complaint(refused))
    return Inspection(
        splits=splits,
        images=count,
        counts={
            name: _counts(divided.labels[part], data.class_count)
            for name, part in divided.splits.items()
        },
        classes=data.class_names,
        seen=seen,
        repeated=find_repeated(facts.fingerprints.tolist(), seen) if len(paths) == count else [],
        mean=mean,
        std=std,
        files=Files(paths, facts, divided.left_out, size, kept, error),
    )


def find_repeated(fingerprints: Sequence[int], seen: Seen) -> list[Repeated]:
    """Count the images that repeat another one: across splits, within one, with another label.

    A fingerprint of 0 is that of an image that cannot be used.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for members in _groups(np.array(fingerprints, dtype=np.uint64)):
        by_split: dict[str, list[int]] = {}
        for place in members:
            by_split.setdefault(seen.splits[place], []).append(place)
        contrary = [p for p in members if seen.labels[p] != seen.labels[members[0]]]
        found.setdefault(CONTRARY, []).extend((members[0], place) for place in contrary)
        for first, second in combinations(by_split, 2):
            pairs = found.setdefault(f"{second} images also in {first}", [])
            pairs += [(by_split[first][0], place) for place in by_split[second]]
        for split, (first_place, *others) in by_split.items():
            pairs = found.setdefault(f"repeated within {split}", [])
            pairs += [(first_place, place) for place in others]
    rows = (Repeated(what, len(pairs), pairs[:MAX_PAIRS]) for what, pairs in found.items())
    return sorted((row for row in rows if row.images), key=lambda row: row.what != CONTRARY)


def _groups(marks: np.ndarray) -> Iterator[list[int]]:
    """Yield the indices of equal marks other than 0, where there are several."""
    order = marks.argsort(kind="stable")
    order = order[np.count_nonzero(marks == 0) :]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(marks[order])) + 1])
    lengths = np.diff(np.append(starts, len(order)))
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        yield order[start : start + length].tolist()


def _moments(sums: np.ndarray, count: int) -> tuple[list[float], list[float]]:
    """Return the mean and deviation in 0-1 of ``count`` levels, from their exact sums."""
    if not count:
        return [math.nan] * sums.shape[1], [math.nan] * sums.shape[1]
    pairs = list(zip(*sums.tolist(), strict=True))
    variances = [(count * squares - total * total) / count**2 for total, squares in pairs]
    return [total / count / 255 for total, _ in pairs], [math.sqrt(v) / 255 for v in variances]


def _stored_bytes(rules: Rules, sizes: np.ndarray, count: int) -> int:
    """Return the bytes of all decoded images; of stored sizes, estimated from those looked at."""
    if rules.store_size is None:
        return count * math.prod(rules.shape)
    areas = [math.prod(stored_size(width, height, rules)) for width, height in sizes.tolist()]
    average = sum(areas) / max(len(areas), 1)
    return round(count * (rules.shape[0] * average + SIZE_BYTES))


def _storage(data: ImageFiles, size: int) -> tuple[Kept, ConvtrainError | None]:
    """Return where decoded images of this size in bytes are kept, or why nowhere."""
    if data.decode == "each_epoch":
        return "in the files", None
    if size <= data.memory_gib * GIB:
        return "in memory", None
    try:
        refuse_too_large(cache_folder(data.cache_dir), size, data.cache_gib)
    except ConfigError as error:
        return "nowhere", error
    return "in the cache", None


def _parts(splits: Splits) -> Iterator[tuple[str, Images]]:
    """Yield the splits by name; one that is also another split comes once."""
    for place, (name, images) in enumerate(zip(SPLITS, splits.images, strict=True)):
        if not any(images is other for other in splits.images[:place]):
            yield name, images


def _blocks(images: Images, shape: Sequence[int]) -> Iterator[np.ndarray]:
    length = max(BLOCK_BYTES // math.prod(shape), 1)
    for indices in torch.arange(len(images)).split(length):
        yield images.read(indices).numpy()


def _words(labels: Tensor, classes: Sequence[str]) -> list[str]:
    if labels.ndim == 1:
        words = dict(enumerate(classes))
        return [words.get(label) or str(label) for label in labels.tolist()]
    return [" and ".join(compress(classes, row)) for row in (labels > 0).tolist()]


def _counts(labels: Tensor, classes: int) -> Tensor:
    return labels.bincount(minlength=classes) if labels.ndim == 1 else (labels > 0).sum(0)
