"""docs/data.md: what ``convtrain check --build`` prints of a folder with images of every kind."""

import contextlib
import io
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from convtrain.__main__ import main
from convtrain.errors import CorruptDataError
from docs.generate import DOCS

PAGE = DOCS / "data.md"
COMMAND = "convtrain check --build data=image_folder data.root=photographs data.shape=[3,32,32]"
SHOWN = re.compile(f"(?<={re.escape(COMMAND)}\n```\n\n```text\n).*?(?=```\n)", re.DOTALL)


def page() -> str:
    """Return the page with what its command prints now."""
    with TemporaryDirectory() as place, _inside(Path(place)):
        write_oddities(Path("photographs"))
        return SHOWN.sub(lambda _: printed(), PAGE.read_text())


def printed() -> str:
    """Return what the command prints in the working directory, but for the time it measures."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(CorruptDataError):
        main(COMMAND.split()[1:])
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    return "".join(f"{line}\n" for line in lines if not line.startswith("decoding, once: "))


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def write_oddities(root: Path) -> None:
    """Write images of every mode and shape, damaged files, and files that are no images."""
    levels = np.random.default_rng(0).integers(0, 256, (40, 10, 36, 48, 3), dtype=np.uint8)
    photographs = iter(Image.fromarray(each[0]) for each in levels)

    def save(name: str, image: Image.Image, form: str | None = None, **options: object) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, form, **options)

    for split, counts in {"train": (8, 2), "test": (2, 2)}.items():
        for name, count in zip(("cat", "dog"), counts, strict=True):
            for number in range(count):
                save(f"{split}/{name}/{number}.png", next(photographs))
    own = next(photographs)
    frames = [next(photographs), next(photographs)]
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[274] = turn
        save(f"train/cat/turned{turn}.jpg", next(photographs), exif=exif, quality=90)
    save("train/cat/progressive.jpg", next(photographs), progressive=True)
    save("train/cat/cmyk.jpg", next(photographs).convert("CMYK"))
    save("train/cat/alpha.png", next(photographs).convert("RGBA"))
    save("train/cat/alpha.webp", _half(next(photographs)), lossless=True)
    save("train/cat/grey.png", next(photographs).convert("L"))
    save("train/cat/grey_alpha.png", next(photographs).convert("LA"))
    save("train/cat/grey_key.png", next(photographs).convert("L"), transparency=7)
    save("train/cat/one_bit.png", next(photographs).convert("1"))
    save("train/cat/palette.png", next(photographs).convert("P"))
    save("train/cat/moving.gif", frames[0], save_all=True, append_images=frames[1:])
    save("train/cat/moving.png", frames[0], save_all=True, append_images=frames[1:])
    save("train/cat/pages.tiff", frames[1], save_all=True, append_images=frames[:1])
    save("train/cat/named.jpg", next(photographs), "PNG")
    save("train/dog/dot.png", own.resize((1, 1)))
    save("train/dog/line.png", own.resize((1, 1000)))
    save("train/dog/wide.png", own.resize((10000, 3)))
    save("train/dog/small.png", own.resize((20, 30)))
    save("train/dog/deep.png", Image.fromarray(levels[0, 0, :, :, 0].astype(np.uint16) * 257))
    (root / "train/dog/deep_colour.png").write_bytes(png(36, 36, 16))
    save("train/dog/float.tiff", Image.fromarray(levels[0, 0, :, :, 0].astype(np.float32)))
    save("train/dog/lab.tiff", Image.new("LAB", (36, 36)))
    (root / "train/dog/empty.jpg").write_bytes(b"")
    whole = (root / "train/cat/turned2.jpg").read_bytes()
    (root / "train/dog/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train/dog/bomb.png").write_bytes(png(60_000, 60_000, 8))
    # The same images once more: in a split, in another split, and of another class.
    for name, again in {
        "train/cat/0.png": "train/cat/again.png",
        "train/cat/1.png": "test/cat/again.png",
        "train/cat/2.png": "train/dog/again.png",
    }.items():
        (root / again).write_bytes((root / name).read_bytes())
    for name in ("train/cat/notes.txt", "train/cat/.DS_Store", "train/cat/Thumbs.db"):
        (root / name).write_text("no image")
    save("train/loose.png", own)


def png(width: int, height: int, bits: int) -> bytes:
    """Return a PNG file whose header declares colour of this size; its pixels are black."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = bytes(min(height * (1 + width * 3 * bits // 8), 100_000))
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _half(image: Image.Image) -> Image.Image:
    """Return an image whose left half is transparent."""
    made = image.convert("RGBA")
    made.paste((0, 0, 0, 0), (0, 0, made.width // 2, made.height))
    return made
