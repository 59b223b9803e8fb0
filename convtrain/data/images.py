"""Labelled images in memory or in a file, and functions that divide them into splits."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor

from convtrain.config.data_sections import OWN_VALIDATION, Fold, held_out
from convtrain.config.folders import SPLITS
from convtrain.data.pixel_file import PixelFile
from convtrain.data.randomness import permutation
from convtrain.data.sized_pixels import SizedPixels
from convtrain.errors import ConfigError, few

BLOCK_BYTES = 1 << 20  # moved at a time


Pixels = Tensor | PixelFile | SizedPixels


@dataclass(frozen=True)
class Images:
    """A set of labelled images."""

    pixels: Pixels  # uint8 of shape (N, channels, height, width); of own sizes, before a crop
    labels: Tensor  # int64 class indices (N,), or float32 (N, classes), how much of each, in 0-1

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Tensor) -> Tensor:
        """Return pixels, uint8 on the labels' device; ``indices`` are int64 on ``indexed_on``.

        Images of their own sizes are the middle crops that an evaluation sees.
        """
        if isinstance(self.pixels, Tensor):
            return self.pixels.index_select(0, indices)
        pixels, device = self.pixels.read(indices), self.labels.device
        if device.type == "cuda":
            pixels = pixels.pin_memory()  # makes the copy asynchronous
        return pixels.to(device, non_blocking=True)

    def expect(self, indices: Tensor) -> None:
        """Announce the next indices, so that the disk fetches these images in the background."""
        if isinstance(self.pixels, PixelFile):
            self.pixels.expect(indices)

    @property
    def indexed_on(self) -> torch.device:
        """The device of indices: that of the pixels, or the CPU for a file."""
        return self.pixels.device if isinstance(self.pixels, Tensor) else torch.device("cpu")

    @property
    def resident_bytes(self) -> int:
        if isinstance(self.pixels, SizedPixels):
            return self.pixels.resident_bytes
        return self.pixels.numel() if isinstance(self.pixels, Tensor) else 0

    def pick(self, indices: Tensor) -> "Images":
        """Return some images, in memory; those of their own sizes stay where they are."""
        if isinstance(self.pixels, SizedPixels):
            return Images(self.pixels.in_order(indices), self.labels[indices])
        return Images(self.read(indices), self.labels[indices])

    def split(self, sizes: Sequence[int]) -> list["Images"]:
        """Return consecutive parts, without a copy."""
        slices = [slice(*ends) for ends in pairwise(accumulate(sizes, initial=0))]
        return [Images(self.pixels[part], self.labels[part]) for part in slices]

    def rearranged(self, parts: Sequence[Tensor]) -> list["Images"]:
        """Return a part for each tensor of indices, which name no image twice.

        Pixels in memory are moved in place, which avoids a second copy, unless the parts follow one
        another. The first part's indices must be sorted.
        """
        order = complete_order(parts, len(self))
        pixels = self.pixels
        if order.equal(torch.arange(len(self))):
            pass
        elif isinstance(pixels, Tensor):
            move_to_end(pixels, order[len(parts[0]) :])
        else:
            pixels = pixels.in_order(order)
        sizes = [len(part) for part in parts]
        return Images(pixels, self.labels[order]).split([*sizes, len(self) - sum(sizes)])[:-1]

    def sample(self, count: int | None, seed: int) -> "Images":
        """Return ``count`` images, in memory; see :func:`sample_stratified`."""
        if count is None or count >= len(self):
            return self
        return self.pick(sample_stratified(self.labels, count, seed).to(self.indexed_on))

    def to(self, device: torch.device, *, pixels_too: bool = True) -> "Images":
        """Move the labels, and the pixels unless they are in a file or ``pixels_too`` is false."""
        pixels = self.pixels
        if pixels_too and isinstance(pixels, Tensor):
            pixels = pixels.to(device)
        return Images(pixels, self.labels.to(device))


@dataclass(frozen=True)
class Splits:
    """The images of a run."""

    train: Images
    val: Images
    test: Images
    tested: Literal["test", "val"] = "test"  # ``val`` where a dataset has no test images
    classes: list[str] | None = None  # names that the dataset has, if they are not configured

    @property
    def images(self) -> tuple[Images, Images, Images]:
        return self.train, self.val, self.test


def by_rarest_label(labels: Tensor) -> Tensor:
    """Return the class of each image to divide by, int64 (N,): its rarest label of several.

    Images without a label are a class, and those of a label that too few have for three splits
    belong to the largest class.
    """
    if labels.ndim == 1:
        return labels
    if len(labels) < 3:
        return torch.zeros(len(labels), dtype=torch.int64)
    has, none = labels > 0.5, labels.shape[1]
    order = has.sum(0).argsort(stable=True)
    rarest = torch.where(has.any(1), order[has[:, order].int().argmax(1)], none)
    sizes = rarest.bincount(minlength=none + 1)
    return torch.where(sizes[rarest] < 3, sizes.argmax(), rarest)


def split_stratified(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the sorted indices, int64, of two parts with the classes in the same proportions.

    ``fraction`` is the size of the second part, which has at least one image of every class. A
    ConfigError names a class that has too few images for both. ``labels`` are int64 (N,).
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        if len(members) < 2:
            raise ConfigError(
                f"class {int(label)} has {len(members)} image; a split needs at least 2 of each"
            )
        order = permutation(len(members), seed, int(label))
        chosen[members[order[: held_out(len(members), fraction)]]] = True
    return (~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1)


def split_fold(classes: Tensor, fold: Fold, seed: int) -> tuple[Tensor, Tensor]:
    """Return the sorted indices, int64, of the training and the validation images of a fold.

    The shuffled images of one class after the other are dealt to the folds in turn, so that every
    image validates in one fold, and the sizes of two folds differ by at most one image, in each
    class and in all. ``classes`` are int64 (N,).
    """
    members = [(classes == label).nonzero().squeeze(1) for label in classes.unique()]
    shuffled = [m[permutation(len(m), seed, int(classes[m[0]]))] for m in members]
    validates = torch.zeros(len(classes), dtype=torch.bool)
    validates[torch.cat(shuffled)[fold.number :: fold.folds]] = True
    return (~validates).nonzero().squeeze(1), validates.nonzero().squeeze(1)


def sample_stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Choose images in the proportions of the classes, with one of each class if possible.

    A larger sample contains the smaller ones of the same seed. The indices are sorted, int64. Of
    labels (N, classes), each combination is a class.
    """
    if labels.ndim > 1:
        labels = labels.unique(dim=0, return_inverse=True)[1]
    turn = torch.empty(len(labels), dtype=torch.float64)
    classes = labels.unique().tolist()
    for label, tie in zip(classes, permutation(len(classes), seed, -1).tolist(), strict=True):
        members = (labels == label).nonzero().squeeze(1)
        order = permutation(len(members), seed, label)
        position = torch.arange(len(members), dtype=torch.float64) + (tie + 0.5) / len(classes)
        turn[members[order]] = position / len(members)
        turn[members[order[0]]] = position[0] / len(members) - 1  # one of each class comes first
    return turn.argsort(stable=True)[:count].sort().values


def divide_labels(
    labels: Tensor,
    *,
    val_fraction: float | Fold,
    test_fraction: float | None = None,
    seed: int,
    given: Collection[str] = ("train",),
    names: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Divide training images: return the indices of ``train``, and of what is split off.

    ``val`` is split off unless it is ``given``, and ``test`` if ``train`` alone is given and there
    is a fraction. ``val_fraction`` applies to the images that remain after ``test`` is split off.
    The folds divide these as well, after ``Fold.limit`` has chosen some of them. The classes keep
    their proportions; of several labels, the rarest of an image is its class. A ConfigError names
    classes that have too few images for all parts.
    """
    has_val, splits_test = "val" in given, test_fraction is not None and {*given} == {"train"}
    parts = ["training", *["validation"] * (not has_val), *["test"] * splits_test]
    what = f"data: {', '.join(parts[:-1])} and {parts[-1]}"
    classes = by_rarest_label(labels)
    refuse_scarce(classes, len(parts), what, names, "add images or leave the class out")
    train, divided = torch.arange(len(labels)), dict[str, Tensor]()
    if test_fraction is not None and splits_test:
        train, divided["test"] = split_stratified(classes, test_fraction, seed)
    if isinstance(val_fraction, Fold):
        fold = val_fraction
        what = f"data.folds={fold.folds}:"
        if has_val:
            raise ConfigError(f"{what} {OWN_VALIDATION}")
        if fold.limit is not None:
            train = train[sample_stratified(labels[train], fold.limit, seed)]
        advice = (
            f"set fewer folds{', a larger data.limit' * (fold.limit is not None)}, or add images"
        )
        what = f"{what} training and validation"
        refuse_scarce(labels[train], fold.folds, what, names, advice)
        rest, val = split_fold(classes[train], fold, seed + 1)
    elif has_val:
        return {"train": train, **divided}
    else:
        rest, val = split_stratified(classes[train], val_fraction, seed + 1)
    return {"train": train[rest], "val": train[val], **divided}


def refuse_scarce(
    labels: Tensor, needed: int, what: str, names: Sequence[str] | None, advice: str
) -> None:
    """Raise a ConfigError that names the classes that have fewer than ``needed`` images.

    Images with several labels count together.
    """
    if labels.ndim > 1:
        labels = torch.zeros(len(labels), dtype=torch.int64)
    present, counts = (found.tolist() for found in labels.unique(return_counts=True))
    scarce = {label: n for label, n in zip(present, counts, strict=True) if n < needed}
    if scarce:
        named = few(f"{names[c] if names else c} ({n})" for c, n in scarce.items())
        raise ConfigError(
            f"{what} need at least {needed} images of each class; too few of class {named}; "
            f"{advice}"
        )


def complete_order(parts: Sequence[Tensor], count: int) -> Tensor:
    """Return all of ``count`` indices, int64: those of the parts, and then those of none."""
    given = torch.cat(list(parts))
    rest = torch.ones(count, dtype=torch.bool)
    rest[given] = False
    return torch.cat([given, rest.nonzero().squeeze(1)])


def divide(
    everything: Images,
    *,
    val_fraction: float | Fold,
    test: Images | None = None,
    test_fraction: float | None = None,
    seed: int,
) -> Splits:
    """Divide into train, validation and test; either ``test`` or ``test_fraction`` is given.

    The pixels are reordered in place, which avoids a second copy in memory.
    """
    parts = divide_labels(
        everything.labels, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed
    )
    ordered = [parts[name] for name in SPLITS if name in parts]
    train, val, *split_off = everything.rearranged(ordered)
    return Splits(train, val, split_off[0] if test is None else test)


def move_to_end(rows: Tensor, chosen: Tensor) -> None:
    """Move the chosen rows behind all others, in place; both keep their order."""
    stay = torch.ones(len(rows), dtype=torch.bool)
    stay[chosen] = False
    moved, start = rows[chosen], 0
    at_once = max(BLOCK_BYTES // max(rows[:1].nbytes, 1), 1)
    for block in stay.nonzero().squeeze(1).split(at_once):
        rows[start : start + len(block)] = rows[block]
        start += len(block)
    rows[start:] = moved
