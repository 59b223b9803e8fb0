"""Time epochs of an image folder after the first: ``python -m benchmarks.image_folder``.

Ours decodes once, and reads pixels from memory or, above ``data.memory_gib``, from a file. Its peer
is torchvision's ImageFolder in a DataLoader with two workers, which decodes in every epoch. Both
return normalised batches of the same size.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.paired import Result, compare_timed, print_table
from convtrain.data.batches import Batches, Normalisation
from convtrain.data.sources.image_folder import load

BATCH, CLASSES, GOAL = 64, 10, 0.33
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FOLDERS = {32: 60_000, 256: 3_000}
"""Number of JPEGs by their side in pixels."""


def rows(pairs: int = 3) -> list[Result]:
    results = []
    for side, count in FOLDERS.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "images"
            write_jpegs(root, count, side)
            stock = stock_loader(root, side)
            for where, memory_gib in (("memory", 100.0), ("the file", 0.0)):
                batches = decoded(root, side, memory_gib, Path(folder) / "cache")
                ratio = compare_timed(partial(epoch, batches), partial(epoch, stock), pairs=pairs)
                what = f"{count:,} JPEGs of {side}x{side}, from {where}: ours / ImageFolder"
                results.append(Result(what, ratio, "s", GOAL))
    return results


def write_jpegs(root: Path, count: int, side: int) -> None:
    """Write smooth random images, which JPEG compresses about as well as photographs."""
    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / str(label)).mkdir(parents=True)
    for index in range(count):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(root / str(index % CLASSES) / f"{index}.jpg", quality=90)


def decoded(root: Path, side: int, memory_gib: float, cache: Path) -> Batches:
    """Return the training batches of ``data=image_folder``, nearly all images."""
    splits = load(
        root=str(root),
        classes=[str(label) for label in range(CLASSES)],
        shape=[3, side, side],
        resize="crop",
        val_fraction=0.001,
        test_fraction=0.001,
        split_seed=0,
        memory_gib=memory_gib,
        max_pixels=10**8,
        cache_dir=str(cache),
    )
    normalise = Normalisation(MEAN, STD)
    return Batches(splits.train, batch_size=BATCH, normalise=normalise, shuffle=True)


def stock_loader(root: Path, side: int) -> DataLoader:
    transform = v2.Compose([
        v2.ToImage(), v2.Resize(side), v2.CenterCrop(side),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ])  # fmt: skip
    dataset = ImageFolder(str(root), transform)
    return DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )


def epoch(batches: Batches | DataLoader) -> float:
    """Return the seconds that one pass over all batches takes."""
    if isinstance(batches, Batches):
        batches.set_epoch(batches.epoch + 1)
    start = time.perf_counter()
    for images, *_ in batches:
        images.sum()
    return time.perf_counter() - start


if __name__ == "__main__":
    print_table(rows())
