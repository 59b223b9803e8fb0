"""More images than the memory may hold: read from a file that is whole, bounded and kept."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convtrain.data import stored_files
from convtrain.data.batches import Batches, Normalisation
from convtrain.data.cache import default_folder
from convtrain.data.images import Splits
from convtrain.data.pixel_file import PixelFile
from convtrain.data.sources import image_folder
from convtrain.errors import ConfigError, CorruptDataError
from tests.conftest import REPOSITORY, Train, compose
from tests.data.resident import in_memory
from tests.launch.test_processes import TORCHRUN

SIDE, COUNT = 16, 12
SIZE = 2 * COUNT * 3 * SIDE * SIDE
TINY = 1e-9  # GiB
read_folder = partial(
    image_folder.load,
    classes=["cat", "dog"], shape=[3, SIDE, SIDE], resize="stretch", val_fraction=0.25,
    test_fraction=0.25, split_seed=0, memory_gib=TINY, max_pixels=100_000,
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(COUNT):
            pixels = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index:02d}.png")
    return tmp_path / "data"


def load(root: Path, **options: Any) -> Splits:
    cache = {"cache_dir": str(root.parent / "cache"), "cache_gib": 1.0}
    return read_folder(root=str(root), **{**cache, **options})


def files(root: Path) -> list[Path]:
    return sorted((root.parent / "cache").glob("*.uint8"))


def test_a_file_gives_the_same_batches_as_memory(root: Path) -> None:
    inside, outside = load(root, memory_gib=1.0), load(root)
    normalise = Normalisation([0.5] * 3, [1.0] * 3)
    assert isinstance(outside.train.pixels, PixelFile)
    assert outside.train.resident_bytes == 0
    assert inside.train.resident_bytes == len(inside.train) * 3 * SIDE * SIDE
    for name in ("train", "val", "test"):
        one, other = (
            Batches(getattr(splits, name), batch_size=4, normalise=normalise, shuffle=True, seed=2)
            for splits in (inside, outside)
        )
        for left, right in zip(one, other, strict=True):
            assert torch.equal(left.images, right.images)
            assert torch.equal(left.targets, right.targets)
    assert torch.equal(
        outside.val.split([2])[0].read(torch.tensor([1])), in_memory(inside.val)[1:2]
    )


def test_a_training_from_a_file_has_the_bits_of_one_from_memory(root: Path, train: Train) -> None:
    common = (
        "data=image_folder", f"data.root={root}", f"data.shape=[3,{SIDE},{SIDE}]", "network=lenet",
        "data.batch_size=8", f"data.cache_dir={root.parent / 'cache'}", "augment=crop_flip",
    )  # fmt: skip
    inside = train(*common, name="inside")
    outside = train(*common, f"data.memory_gib={TINY}", name="outside")
    assert files(root)
    for key in ("train/loss_epoch", "val/loss", "test/loss"):
        assert inside[key] == outside[key]


def test_the_file_is_made_once_and_anew_where_anything_has_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(root)
    (made,) = files(root)
    assert made.stat().st_size == SIZE
    with monkeypatch.context() as patch:
        patch.setattr(stored_files, "decode", None)  # whoever decodes now fails
        load(root)
    changes: list[dict[str, Any]] = [
        {"shape": [3, 8, 8]}, {"resize": "crop"}, {"split_seed": 1}, {"limit": 2},
        {"background": 0}, {"value_range": [0, 65535]},
    ]  # fmt: skip
    for change in changes:
        before = len(files(root))
        load(root, **change)
        assert len(files(root)) == before + 1, change
    os.utime(root / "cat" / "00.png", ns=(1, 1))
    before = len(files(root))
    load(root)
    assert len(files(root)) == before + 1
    monkeypatch.setattr(stored_files, "PIXEL_RULES", stored_files.PIXEL_RULES + 1)
    load(root)
    assert len(files(root)) == before + 2


def test_names_need_not_be_utf_8(root: Path) -> None:
    (root / "cat" / "00.png").rename(os.fsdecode(bytes(root / "cat") + b"/\xe9.png"))
    load(root)
    load(root)
    assert len(files(root)) == 1


def test_processes_of_one_machine_decode_the_images_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = load(root, memory_gib=1.0)
    assert not files(root)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    first = load(root, memory_gib=1.0)
    assert len(files(root)) == 1
    monkeypatch.setattr(stored_files, "decode", None)  # whoever decodes now fails
    second = load(root, memory_gib=1.0)
    for splits in (first, second):
        assert torch.equal(in_memory(splits.train), in_memory(alone.train))
        assert torch.equal(in_memory(splits.test), in_memory(alone.test))


def test_a_torn_file_is_made_again(root: Path) -> None:
    whole = load(root).train.read(torch.arange(5))
    (made,) = files(root)
    made.write_bytes(made.read_bytes()[:1000])
    assert torch.equal(load(root).train.read(torch.arange(5)), whole)


def test_one_that_shrinks_while_it_is_read_is_named(root: Path) -> None:
    splits = load(root)
    (made,) = files(root)
    os.truncate(made, 3 * SIDE * SIDE)
    with pytest.raises(CorruptDataError, match=f"{made}: ends before image 1"):
        splits.train.read(torch.tensor([0, 1]))


def test_the_oldest_files_make_room(root: Path) -> None:
    most = 2.5 * SIZE / (1 << 30)
    for seed in (0, 1):
        load(root, split_seed=seed, cache_gib=most)
        os.utime(files(root)[0], (time.time() - 100, time.time() - 100))
    first = min(files(root), key=lambda path: path.stat().st_mtime)
    load(root, split_seed=2, cache_gib=most)
    assert len(files(root)) == 2
    assert first not in files(root)


def test_what_fits_nowhere_is_refused_in_one_line(root: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(root, memory_gib=TINY, cache_gib=2 * TINY)
    text = str(raised.value)
    assert text.startswith("data.cache_gib=2e-09: the decoded images take 1.72e-05 GiB, more than")
    assert "set data.cache_gib=0.00102" in text
    assert len(text.splitlines()) == 1
    load(root, memory_gib=TINY, cache_gib=0.00102)
    assert not list((root.parent / "cache").glob(".*.tmp"))


def test_a_folder_that_cannot_be_is_refused_in_one_line(root: Path) -> None:
    (root.parent / "cache").write_text("a file")
    with pytest.raises(ConfigError, match=r"data\.cache_dir=.*set data\.cache_dir=FOLDER"):
        load(root)


def test_the_cache_is_where_caches_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "convtrain"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "convtrain"


SLOW_WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from convtrain.data.cache import cached
def blocks():
    yield np.zeros(1000, dtype=np.uint8)
    print("half", flush=True)
    time.sleep(60)
cached("name", blocks, size=2000, folder=Path(sys.argv[1]), max_gib=1.0)
"""


def test_a_writer_that_is_killed_leaves_nothing_that_counts(root: Path) -> None:
    folder = root.parent / "cache"
    writer = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER, str(folder)], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"half\n"
    assert not files(root)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert list(folder.glob(".*.tmp"))
    load(root)
    assert len(files(root)) == 1
    assert not list(folder.glob(".*.tmp"))


MEASURE = """
import re, sys
from pathlib import Path
from convtrain.data.batches import Batches, Normalisation
from convtrain.data.sources.image_folder import load

def show_peak():
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024)

options = dict(root=sys.argv[1], classes=["a"], shape=[3, 256, 256], resize="stretch",
               val_fraction=0.1, test_fraction=0.1, split_seed=0, max_pixels=10**6,
               cache_dir=sys.argv[2])
show_peak()
for budget in (0.01, 1.0):
    splits = load(memory_gib=budget, **options)
    normalise = Normalisation([0.5] * 3, [0.5] * 3)
    for batch in Batches(splits.train, batch_size=8, normalise=normalise, shuffle=True):
        pass
    show_peak()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for the peak")
def test_the_memory_stays_within_the_budget(tmp_path: Path) -> None:
    """Decoding and an epoch, measured by the operating system: 118 MB of images, of which 10 MB
    may be in memory, and then all."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    first, count = tmp_path / "data" / "a" / "0.jpg", 600
    Image.effect_noise((256, 256), 50).save(first)
    for index in range(1, count):
        first.with_name(f"{index}.jpg").hardlink_to(first)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "data", tmp_path / "cache"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, from_file, in_memory = map(int, done.stdout.split())
    images, besides = count * 3 * 256 * 256, 80e6  # blocks on their way, and batches of floats
    assert from_file - before < 0.01 * 2**30 + besides
    assert images < in_memory - before < images + besides


def test_published_images_that_do_not_fit_are_refused_before_they_are_read() -> None:
    expected = (
        "data.memory_gib=0.1: 60,000 images of [3, 32, 32] take 0.172 GiB; "
        "set data.memory_gib=0.173 or more, or choose another data"
    )
    with pytest.raises(ConfigError) as raised:
        compose("data=cifar10", "data.memory_gib=0.1")
    assert expected in str(raised.value)
