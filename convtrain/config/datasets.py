"""What is known of a dataset without reading it: images, classes, the size of each split."""

from typing import NamedTuple

from convtrain.config.groups.data import Data, Digits, ImageFolder, Synthetic


class Published(NamedTuple):
    """A published dataset, in its authors' numbers.

    Attributes:
        shape: channels, height and width in pixels.
        training: images of each class in what is split into training and validation.
        test: images of the test set; 0 where it is split off as well.
    """

    shape: tuple[int, int, int]
    training: tuple[int, ...]
    test: int


PUBLISHED = {
    "digits": Published((1, 8, 8), (178, 182, 177, 183, 181, 182, 181, 179, 174, 180), 0),
    "mnist": Published(
        (1, 28, 28), (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), 10_000
    ),
    "fashion_mnist": Published((1, 28, 28), (6000,) * 10, 10_000),
    "kmnist": Published((1, 28, 28), (6000,) * 10, 10_000),
    "cifar10": Published((3, 32, 32), (5000,) * 10, 10_000),
    "cifar100": Published((3, 32, 32), (500,) * 100, 10_000),
    "svhn": Published(
        (3, 32, 32), (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659), 26_032
    ),
}


class Sizes(NamedTuple):
    """Images in each split, after ``data.limit`` and ``data.overfit_batches``."""

    train: int
    val: int
    test: int


def split_sizes(data: Data) -> Sizes | None:
    """Return the sizes of the splits, or None where they depend on files."""
    if isinstance(data, ImageFolder):
        return None
    if isinstance(data, Synthetic):
        train = val = data.train_size
        test = min(data.test_size, train) if data.fill == "ones" else data.test_size
        if data.fill == "noise":
            classes = data.num_classes or len(data.classes or ()) or 1
            train, val = _divided(_in_turn(data.train_size, classes), data.val_fraction)
    else:
        published = PUBLISHED[data.name]
        counts, test = list(published.training), published.test
        if isinstance(data, Digits):
            held_out = [_held_out(count, data.test_fraction) for count in counts]
            test = sum(held_out)
            counts = [count - out for count, out in zip(counts, held_out, strict=True)]
        train, val = _divided(counts, data.val_fraction)
    limit = data.limit or max(train, val, test)
    train, val, test = min(train, limit), min(val, limit), min(test, limit)
    if data.overfit_batches is not None:
        train = val = min(train, data.overfit_batches * data.batch_size)
    return Sizes(train, val, test)


def _divided(counts: list[int], fraction: float) -> tuple[int, int]:
    out = sum(_held_out(count, fraction) for count in counts)
    return sum(counts) - out, out


def _held_out(count: int, fraction: float) -> int:
    """Images of a class that a stratified split takes out: at least one, and not all."""
    return min(max(round(count * fraction), 1), count - 1)


def _in_turn(images: int, classes: int) -> list[int]:
    """Images of each class where the classes take turns."""
    whole, rest = divmod(images, classes)
    return [whole + (index < rest) for index in range(min(classes, images))]
