"""Every source takes the memory of its pixels, and of a block that it works on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import REPOSITORY

MIB = 1 << 20
COUNT, SIDE = 1400, 128  # 66 MiB of pixels
PIXELS = COUNT * 3 * SIDE * SIDE
ALLOWED = 32 * MIB  # beside the pixels; a second copy of them would be more

CODE = """
import json, re, sys, torch
from pathlib import Path
from convtrain.data.images import Images, divide
from convtrain.data.sources import image_folder, synthetic as noise

count, side, root = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
shape = [3, side, side]

def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024

def synthetic(count, fill="noise", val_fraction=0.1):
    size = {"train_size": count - count // 10, "test_size": count // 10}
    return noise.load(shape=shape, num_classes=4, fill=fill, val_fraction=val_fraction,
                          split_seed=0, **size)

def folder(count):
    return image_folder.load(root=root, classes=["cat", "dog"], shape=shape, resize="stretch",
                             val_fraction=0.5, test_fraction=0.1, split_seed=0, memory_gib=1.0,
                             max_pixels=100,
                             limit=count)

def given(count):
    pixels = torch.ones(count, *shape, dtype=torch.uint8)
    return divide(Images(pixels, torch.arange(count) % 2), val_fraction=0.1,
                  test_fraction=0.1, seed=0)

sources = {
    "noise": synthetic, "ones": lambda count: synthetic(count, "ones"),
    "noise, half of it for validation": lambda count: synthetic(count, val_fraction=0.5),
    "image_folder": folder, "a source that is read whole": given,
}
for load in sources.values():
    load(40)
before, found = peak(), {}
for name, load in sources.items():
    splits = load(count)
    found[name] = peak() - before
    del splits
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for the peak")
def test_a_source_takes_its_pixels_and_a_block(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(COUNT // 2):
            Image.new("RGB", (8, 8), (index % 256,) * 3).save(tmp_path / name / f"{index}.bmp")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(COUNT), str(SIDE), str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    peaks = json.loads(done.stdout)
    assert PIXELS / 2 < peaks["noise"] < PIXELS + ALLOWED
    assert max(peaks.values()) < PIXELS + ALLOWED, peaks
