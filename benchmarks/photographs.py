"""Time epochs of photographs that are larger than the input: ``python -m benchmarks.photographs``.

Both sides crop at random as RandomResizedCrop does, to 224x224, flip and normalise, in batches of
64, and train nothing. Ours decodes once, to a shorter side of 256 pixels, and crops what is stored,
in memory or in the cache's file. Its peer is torchvision's ImageFolder in a DataLoader with two
workers, which decodes in every epoch. A first epoch begins with the list of the files: ours decodes
all into memory or into the cache's file and then reads an epoch; the peer starts its workers.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.image_folder import BATCH, CLASSES, MEAN, STD, epoch
from benchmarks.paired import Ratio, Result, compare_timed, print_table
from convtrain.assembly import make_data
from convtrain.command.configure import configure
from convtrain.config.schema import Config
from convtrain.data.batches import Batches

COUNT, SIZE, STORED, SIDE = 5_000, (400, 300), 256, 224
GOAL, FIRST_GOAL = 0.33, 1.1
NOISE_SIDE = 1024  # of the noise that photographs are cut out of, in pixels


def rows(pairs: int = 3, count: int = COUNT, images: Path | None = None) -> list[Result]:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        root, cache = images or Path(folder) / "images", Path(folder) / "cache"
        if images is None:
            write_photographs(root, count)
        count = sum(1 for _ in root.rglob("*.jpg"))
        what = f"{count:,} JPEGs of {SIZE[0]}x{SIZE[1]}, crops of {SIDE}x{SIDE}"
        for where, memory_gib in (("memory", 100.0), ("the file", 0.001)):
            batches = stored(configured(root, memory_gib, cache))
            ratio = later_epochs(batches, stock_loader(root), pairs)
            results.append(Result(f"{what}, from {where}: ours / ImageFolder", ratio, "s", GOAL))
        for where, memory_gib in (("into memory", 100.0), ("into the file", 0.001)):
            config = configured(root, memory_gib, cache)
            ratio = compare_timed(
                partial(first, partial(stored, config), cache),
                partial(first, partial(stock_loader, root)),
                pairs=pairs,
            )
            what = f"the first epoch, with its decoding {where}: the same"
            results.append(Result(what, ratio, "s", FIRST_GOAL))
    return results


def later_epochs(batches: Batches, stock: DataLoader, pairs: int) -> Ratio:
    try:
        return compare_timed(lambda: epoch(batches), lambda: epoch(stock), pairs=pairs)
    finally:
        batches.close()


def write_photographs(root: Path, count: int) -> None:
    """Write images whose spectrum falls with the frequency, as that of photographs does."""
    generator = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(NOISE_SIDE)] * 2))
    frequency[0, 0] = np.inf
    phases = generator.normal(size=(4, 2, NOISE_SIDE, NOISE_SIDE))
    spectrum = (phases[:, 0] + 1j * phases[:, 1]) / frequency**1.2
    grey, *colours = (field / field.std() for field in np.fft.ifft2(spectrum).real)
    noise = 120 + np.stack([50 * grey + 15 * colour for colour in colours], axis=2)
    noise = (noise + generator.normal(0, 4, noise.shape)).clip(0, 255).astype(np.uint8)
    for label in range(CLASSES):
        (root / str(label)).mkdir(parents=True)
    for index in range(count):
        shift = generator.integers(0, NOISE_SIDE, 2)
        part = np.roll(noise, shift, axis=(0, 1))[: SIZE[1], : SIZE[0]]
        Image.fromarray(part).save(root / str(index % CLASSES) / f"{index}.jpg", quality=90)


def configured(root: Path, memory_gib: float, cache: Path) -> Config:
    """Return a configuration with ``data.store_size`` that trains on nearly all images."""
    return configure([
        "data=image_folder", f"data.root={root}", f"data.shape=[3,{SIDE},{SIDE}]",
        f"data.store_size={STORED}", f"data.batch_size={BATCH}", f"data.memory_gib={memory_gib}",
        f"data.cache_dir={cache}", "data.val_fraction=0.001", "data.test_fraction=0.001",
        f"data.mean={MEAN}", f"data.std={STD}", "augment.horizontal_flip=0.5",
    ]).config  # fmt: skip


def stored(config: Config) -> Batches:
    return make_data(config).train_dataloader()


def stock_loader(root: Path) -> DataLoader:
    transform = v2.Compose([
        v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip(), v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ])  # fmt: skip
    return DataLoader(
        ImageFolder(str(root), transform), batch_size=BATCH, shuffle=True, num_workers=2,
        persistent_workers=True,
    )  # fmt: skip


def first(begin: Callable[[], Batches | DataLoader], cache: Path | None = None) -> float:
    """Return the seconds from the list of the files to the end of the first epoch.

    ``cache`` is emptied before.
    """
    if cache is not None:
        shutil.rmtree(cache, ignore_errors=True)
    start = time.perf_counter()
    batches = begin()
    epoch(batches)
    seconds = time.perf_counter() - start
    if isinstance(batches, Batches):
        batches.close()
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of JPEGs, FOLDER/CLASS/*.jpg")
    parser.add_argument("--count", type=int, default=COUNT, help="number of images made up")
    parser.add_argument("--pairs", type=int, default=3)
    chosen = parser.parse_args()
    print_table(rows(chosen.pairs, chosen.count, chosen.images))
