"""Time ``convtrain predict`` after its start: ``python -m benchmarks.predict``.

Its peer is what a script does: a DataLoader with two workers, Pillow, torchvision's transforms, the
model in inference mode, and the csv module. Both write the same columns, in batches of the same
size. Each side is a process of its own, because the command sets OMP_WAIT_POLICY before it imports
torch; the times begin after the imports. ``--images FOLDER`` takes files of your own for the rows
of 32x32. ``--cpu`` compares CPU times, workers included, where other programs use the cores.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.paired import Result, compare_timed, print_table

BATCH, GOAL = 128, 0.667
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
STRIDED = (
    "[{Conv2d:{out_channels:16,kernel_size:7,stride:4}},ReLU,{MaxPool2d:{kernel_size:2}},"
    "{Conv2d:{out_channels:32,kernel_size:3}},ReLU,{AdaptiveAvgPool2d:{output_size:1}},Flatten,"
    "{Linear:{out_features:10}}]"
)


class Work(NamedTuple):
    what: str
    files: int
    size: tuple[int, int]  # of the files, width and height
    side: int  # of the model's input
    strided: bool


WORK = (
    Work("10,000 JPEGs of 32x32, two convolutions", 10_000, (32, 32), 32, False),
    Work("2,000 JPEGs of 400x300 to 64x64, two convolutions", 2_000, (400, 300), 64, False),
    Work("1,000 JPEGs of 400x300 to 224x224, a strided convolution", 1_000, (400, 300), 224, True),
)


def rows(pairs: int = 5, images: Path | None = None, *, cpu: bool = False) -> list[Result]:
    results = []
    for work in WORK:
        with tempfile.TemporaryDirectory() as name:
            folder, run = Path(name) / "images", Path(name) / "run"
            if images is not None and work.side == 32:
                folder = images
            else:
                write_photographs(folder, work)
            train(run, work)
            sides = [
                Side("ours", folder, run, PASSIVE, cpu),
                Side("stock", folder, run, {}, cpu),
                Side("stock", folder, run, PASSIVE, cpu),
            ]
            named = (f"{work.what}: ours / a script", "the same, both OMP_WAIT_POLICY=PASSIVE")
            for what, peer in zip(named, sides[1:], strict=True):
                ratio = compare_timed(sides[0].seconds, peer.seconds, pairs=pairs)
                results.append(Result(what, ratio, "s", GOAL))
            for side in sides:
                side.close()
    return results


def write_photographs(folder: Path, work: Work) -> None:
    """Write smooth images with noise, which JPEG compresses about as well as photographs."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    folder.mkdir()
    for index in range(work.files):
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(work.size, Image.Resampling.BICUBIC))
        noisy = smooth + generator.normal(0, 8, smooth.shape)
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{index:05d}.jpg", quality=90)


def train(run: Path, work: Work) -> None:
    """Make a run whose model takes these images; how well it is trained does not matter."""
    from benchmarks.setting import LAYERS

    layers = STRIDED if work.strided else LAYERS
    typed = [
        "data=synthetic", f"data.shape=[3,{work.side},{work.side}]", f"network.layers={layers}",
        "data.train_size=128",
        "data.test_size=16", "trainer=cpu", "trainer.max_steps=1", "logger=none",
        "recorder=off", f"hydra.run.dir={run}",
    ]  # fmt: skip
    command = [sys.executable, "train.py", *typed]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1])


class Side:
    """A process that predicts all images once for each line that it reads."""

    def __init__(
        self, name: str, folder: Path, run: Path, environment: dict[str, str], cpu: bool
    ) -> None:
        self.cpu = cpu
        words = [sys.executable, "-m", "benchmarks.predict", "--side", name, str(folder), str(run)]
        inherited = {k: value for k, value in os.environ.items() if k != "OMP_WAIT_POLICY"}
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**inherited, **environment}, cwd=Path(__file__).parents[1],
        )  # fmt: skip

    def seconds(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("cpu" if self.cpu else "wall", file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def serve(name: str, folder: Path, run: Path) -> None:
    import convtrain
    from benchmarks.setting import quiet

    quiet()
    trained = convtrain.load(run, device="cpu")
    make = {"ours": ours, "stock": stock}[name]
    predict = make(trained, sorted(map(str, folder.rglob("*.jpg"))), run / f"{os.getpid()}.csv")
    for line in sys.stdin:
        clock = cpu_seconds if line.strip() == "cpu" else time.perf_counter
        began = clock()
        predict()
        print(clock() - began, flush=True)


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it has started and that have ended."""
    return sum(os.times()[:4])


def ours(trained, paths: list[str], out: Path) -> Callable[[], None]:
    from convtrain.use.predict_files import predict_files
    from convtrain.use.predictions_csv import predictions_csv

    def predict() -> None:
        with predictions_csv(str(out), 5, multi_label=False) as written:
            for predictions in predict_files(trained, paths, batch_size=BATCH):
                written.add(predictions)

    return predict


def stock(trained, paths: list[str], out: Path) -> Callable[[], None]:
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    side = trained.preprocessing.shape[1]
    transform = transforms.Compose([
        transforms.Resize(side), transforms.CenterCrop(side), transforms.ToTensor(),
        transforms.Normalize(trained.preprocessing.mean, trained.preprocessing.std),
    ])  # fmt: skip
    model = trained.model.to(memory_format=torch.contiguous_format).eval()

    class Files(Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
            return transform(Image.open(paths[index]).convert("RGB")), paths[index]

    loader = DataLoader(Files(), batch_size=BATCH, num_workers=2)

    def predict() -> None:
        with out.open("w", newline="") as file, torch.inference_mode():
            writer = csv.writer(file)
            for images, names in loader:
                values, indices = model(images).softmax(1).topk(5)
                for name, row, ranked in zip(names, values.tolist(), indices.tolist(), strict=True):
                    cells = [c for i, p in zip(ranked, row, strict=True)
                             for c in (trained.classes[i], f"{p:.6g}")]  # fmt: skip
                    writer.writerow([name, *cells])

    return predict


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of JPEGs")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="compare CPU time")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side:
        name, *folders = chosen.side
        serve(name, *map(Path, folders))
    else:
        print_table(rows(chosen.pairs, chosen.images, cpu=chosen.cpu))
