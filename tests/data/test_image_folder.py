"""Images of one's own: found, decoded, resized, divided; a bad one is named."""

import os
import random
import signal
import struct
import tracemalloc
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from convtrain.config.folders import read_layout
from convtrain.data import file_blocks, stored_files
from convtrain.data.images import Images, divide
from convtrain.data.sources import image_folder
from convtrain.errors import ConfigError, CorruptDataError, MissingDataError, TrainingError
from tests.conftest import compose
from tests.data.resident import in_memory

load = partial(
    image_folder.load,
    classes=["cat", "dog"],
    shape=[3, 16, 16],
    resize="stretch",
    val_fraction=0.25,
    test_fraction=0.25,
    split_seed=0,
    memory_gib=1.0,
    max_pixels=100_000,
)
COLOURS = {"cat": (250, 0, 0), "dog": (0, 0, 250)}


def fill(folder: Path, count: int, size: tuple[int, int] = (20, 30), suffix: str = "png") -> None:
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", size, colour).save(folder / name / f"{index}.{suffix}")


def test_one_folder_is_divided_and_labels_follow_the_folders(tmp_path: Path) -> None:
    fill(tmp_path, 16)
    assert read_layout(tmp_path).classes == ["cat", "dog"]
    splits = load(root=str(tmp_path))
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [18, 6, 8]
    for part in (splits.train, splits.val, splits.test):
        assert part.pixels.shape[1:] == (3, 16, 16)
        red = in_memory(part)[:, 0].float().mean((1, 2)) > 100
        assert torch.equal(red, part.labels == 0)


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    fill(tmp_path / "train", 8, suffix="jpg")
    fill(tmp_path / "test", 3, suffix="jpg")
    splits = load(root=str(tmp_path))
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [12, 4, 6]


def test_each_image_keeps_its_pixels_its_label_and_its_split(tmp_path: Path) -> None:
    """Against torchvision's ImageFolder, and a split of its labels that knows of no files."""
    draw = np.random.default_rng(0)
    for name in COLOURS:
        (tmp_path / name).mkdir()
        for index in range(12):
            drawn = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(drawn).save(tmp_path / name / f"{index:02d}.jpg")
    everything = datasets.ImageFolder(str(tmp_path), v2.PILToTensor())
    pixels = torch.stack([image for image, _ in everything])
    labels = torch.tensor(everything.targets)
    expected = divide(
        Images(pixels, labels), val_fraction=0.25, test=None, test_fraction=0.25, seed=0
    )
    splits = load(root=str(tmp_path))
    for name in ("train", "val", "test"):
        found, wanted = getattr(splits, name), getattr(expected, name)
        assert torch.equal(found.pixels, wanted.pixels)
        assert torch.equal(found.labels, wanted.labels)


def test_workers_decode_what_this_process_does_and_leave_torch_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 16)
    alone = load(root=str(tmp_path))
    monkeypatch.setattr(file_blocks, "BLOCK_BYTES", 3 * 16 * 16 * 2)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with_workers = load(root=str(tmp_path))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(in_memory(alone.train), in_memory(with_workers.train))
    (tmp_path / "dog" / "3.png").write_bytes(b"")
    with pytest.raises(CorruptDataError, match=r"dog/3\.png: cannot be decoded") as raised:
        load(root=str(tmp_path))
    assert len(str(raised.value).splitlines()) == 1


def test_a_worker_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 16)
    monkeypatch.setattr(file_blocks, "BLOCK_BYTES", 3 * 16 * 16 * 2)
    plain, parent = stored_files.decode, os.getpid()

    def deadly(path: Path, *arguments: Any) -> np.ndarray:
        if path.name == "3.png" and path.parent.name == "dog" and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(path, *arguments)

    monkeypatch.setattr(stored_files, "decode", deadly)
    with pytest.raises(TrainingError, match=r"a process that decodes .* was killed") as raised:
        load(root=str(tmp_path))
    assert str(tmp_path) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_crop_keeps_the_proportions_and_the_middle(tmp_path: Path) -> None:
    picture = np.zeros((16, 48), dtype=np.uint8)
    picture[:, 16:32] = 200
    for name in COLOURS:
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(picture).save(tmp_path / name / f"{index}.png")
    cropped = load(root=str(tmp_path), shape=[1, 16, 16], resize="crop")
    assert (cropped.train.pixels == 200).all()
    stretched = load(root=str(tmp_path), shape=[1, 16, 16])
    assert (in_memory(stretched.train)[:, :, :, 0] == 0).all()


def test_large_jpegs_are_decoded_at_a_part_of_their_size_and_look_the_same(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 512).astype(np.uint8)
    picture = Image.fromarray(np.stack([np.add.outer(smooth // 2, smooth // 2)] * 3, axis=-1))
    for name in COLOURS:
        (tmp_path / name).mkdir()
        for index in range(4):
            picture.save(tmp_path / name / f"{index}.jpg", quality=95)
    expected = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR), dtype=np.int16)
    found = load(root=str(tmp_path), max_pixels=512 * 512).train.read(torch.tensor([0]))[0]
    assert np.abs(found.permute(1, 2, 0).numpy().astype(np.int16) - expected).max() <= 4


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 4, suffix="jpg")
    broken = tmp_path / "dog" / "2.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(CorruptDataError) as raised:
        load(root=str(tmp_path))
    assert str(broken) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_giant_image_is_refused_with_its_size(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    Image.new("RGB", (400, 300)).save(tmp_path / "cat" / "giant.png")
    with pytest.raises(CorruptDataError, match=r"giant\.png: 400x300 pixels"):
        load(root=str(tmp_path))


def png_of(width: int, height: int) -> bytes:
    """Return a small PNG file whose header declares a huge picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (20_000, 6_000), (2**31 - 1, 1)], ids=str)
def test_a_picture_that_would_unfold_is_refused_by_what_its_header_says(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    fill(tmp_path, 4)
    (tmp_path / "cat" / "bomb.png").write_bytes(png_of(*size))
    before = Image.MAX_IMAGE_PIXELS
    tracemalloc.start()
    with pytest.raises(CorruptDataError) as raised:
        load(root=str(tmp_path), max_pixels=100_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"bomb.png: {size[0]}x{size[1]} pixels" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert peak < 50e6
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_damaged_files_are_refused_by_name_or_are_still_pictures(
    tmp_path: Path, suffix: str
) -> None:
    draw = random.Random(suffix)
    fill(tmp_path, 3, suffix=suffix)
    target = tmp_path / "cat" / f"0.{suffix}"
    whole = target.read_bytes()
    for _ in range(40):
        damaged = bytearray(whole[: draw.choice([len(whole), draw.randrange(len(whole))])])
        for _ in range(draw.randrange(6)):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        target.write_bytes(damaged)
        try:
            splits = load(root=str(tmp_path))
        except CorruptDataError as error:
            assert str(target) in str(error)  # noqa: PT017
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert splits.train.pixels.shape[1:] == (3, 16, 16)


LINKS = {
    "an image": ("cat/link.png", "outside/secret.png"),
    "a class": ("bird", "outside"),
    "an image by its relative path": ("cat/up.png", "../../outside/secret.png"),
}


@pytest.mark.parametrize(("link", "target"), LINKS.values(), ids=LINKS.keys())
def test_links_that_lead_out_of_the_folder_are_refused(
    tmp_path: Path, link: str, target: str
) -> None:
    root = tmp_path / "data"
    fill(root, 8)
    (tmp_path / "outside").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "outside" / "secret.png")
    leads_to = Path(target) if target.startswith("..") else tmp_path / target
    (root / link).symlink_to(leads_to)
    classes = sorted(entry.name for entry in root.iterdir())
    with pytest.raises(MissingDataError) as raised:
        load(root=str(root), classes=classes)
    assert str(root / link) in str(raised.value)
    assert "outside of data.root" in str(raised.value)
    if link == "bird":
        with pytest.raises(MissingDataError, match=r"outside of data\.root"):
            read_layout(root)


def test_links_within_the_folder_and_to_the_folder_are_welcome(tmp_path: Path) -> None:
    fill(tmp_path / "data", 8)
    (tmp_path / "data" / "cat" / "again.png").symlink_to("0.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    splits = load(root=str(tmp_path / "link" / ".." / "link"))
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 17


def test_class_names_are_names_of_folders(tmp_path: Path) -> None:
    fill(tmp_path / "data", 4)
    fill(tmp_path / "outside", 4)
    for classes, expected in {
        "[cat,../outside/dog]": "data.classes.1=../outside/dog: must be the name of a folder",
        "[cat,bird]": "no folder for [bird]; there are [cat, dog]",
        "[cat,cat]": "cat is listed more than once",
    }.items():
        with pytest.raises(ConfigError) as raised:
            compose(
                "data=image_folder", f"data.root={tmp_path / 'data'}", f"data.classes={classes}"
            )
        assert expected in str(raised.value)


def test_folders_without_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    with pytest.raises(
        MissingDataError, match=r"no images in .* for class cat \(empty\), dog \(empty\)"
    ):
        load(root=str(tmp_path))
