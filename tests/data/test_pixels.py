"""What the pixels of a file become: a rule for every mode and depth that Pillow reads.

The files are written here from known values, by hand where Pillow cannot write them.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from torch import Tensor

from convtrain.data.decoding import Rules, decode
from convtrain.data.pixel_file import PixelFile
from convtrain.data.pixels import DEEP, EIGHT_BITS, WITH_ALPHA
from convtrain.data.stored_files import decode_files
from convtrain.errors import ConfigError, CorruptDataError
from tests.conftest import REPOSITORY, compose

Bytes = Callable[[], bytes]
BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)


def rules(channels: int = 3, size: tuple[int, int] = (1, 2), **options: Any) -> Rules:
    return Rules([channels, *size], "stretch", 10_000, **options)


def decoded(files: Sequence[Path], rules: Rules) -> Tensor | PixelFile:
    return decode_files(files, rules, memory_gib=1.0, cache_dir=None, cache_gib=1.0)


def saved(kind: str, image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def of_mode(mode: str, *pixels: Any) -> Image.Image:
    """Return an image of one row."""
    image = Image.new(mode, (len(pixels), 1))
    for place, pixel in enumerate(pixels):
        image.putpixel((place, 0), pixel)
    return image


def palette(mode: str, *pixels: Any) -> Image.Image:
    image = of_mode(mode, *pixels)
    image.putpalette([*RED, 0, 0, 200])
    return image


def png(bits: int, colour_type: int, *samples: int, transparent: bytes = b"") -> bytes:
    """Return a PNG file of one row of two pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    if bits < 8:
        packed = sum(s << (8 - bits * (place + 1)) for place, s in enumerate(samples))
        row = bytes([packed])
    else:
        row = struct.pack(f">{len(samples)}{'H' if bits == 16 else 'B'}", *samples)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, colour_type, 0, 0, 0)),
            chunk(b"tRNS", transparent) if transparent else b"",
            chunk(b"IDAT", zlib.compress(b"\0" + row)),
            chunk(b"IEND", b""),
        ]
    )


def tiff(array: np.ndarray, photometric: int = 1, bits: int | None = None) -> bytes:
    """Return a TIFF file of one row of two pixels: grey, or (red, green, blue) if given so."""
    samples = array.shape[1] if array.ndim == 2 else 1
    content = array.tobytes()
    bits = bits or array.itemsize * 8
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    entries = [
        (256, 3, 1, 2), (257, 3, 1, 1), (259, 3, 1, 1), (262, 3, 1, photometric),
        (273, 4, 1, 8), (277, 3, 1, samples), (278, 3, 1, 1), (279, 4, 1, len(content)),
    ]  # fmt: skip
    directory = 8 + len(content)
    after = directory + 2 + 12 * (len(entries) + 2) + 4
    extra = b""
    for tag, value in ((258, bits), (339, kind)):
        if samples == 1:
            entries.append((tag, 3, 1, value))
        else:
            entries.append((tag, 3, samples, after + len(extra)))
            extra += struct.pack(f"<{samples}H", *[value] * samples)
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    head = b"II*\0" + struct.pack("<I", directory)
    return head + content + struct.pack("<H", len(entries)) + packed + bytes(4) + extra


TWELVE_BITS = {"value_range": [0, 4095]}
SIXTEEN_BITS = {"value_range": [0, 65535]}

# What the file is: its name, its bytes, the mode that Pillow opens it in, options, the two pixels.
ROWS: dict[str, tuple[str, Bytes, str, dict[str, Any], tuple[Any, Any]]] = {
    "1 bit": ("a.png", lambda: png(1, 0, 0, 1), "1", {}, (BLACK, WHITE)),
    "2 bits, grey": ("a.png", lambda: png(2, 0, 1, 3), "L", {}, ((85,) * 3, WHITE)),
    "4 bits, grey": ("a.png", lambda: png(4, 0, 1, 15), "L", {}, ((17,) * 3, WHITE)),
    "8 bits, grey": ("a.png", lambda: png(8, 0, 7, 200), "L", {}, ((7,) * 3, (200,) * 3)),
    "8 bits, grey, TIFF whose white is 0": (
        "a.tiff", lambda: tiff(np.array([7, 200], np.uint8), photometric=0), "L", {},
        ((248,) * 3, (55,) * 3),
    ),
    "palette": ("a.png", lambda: saved("PNG", palette("P", 0, 1)), "P", {}, (RED, (0, 0, 200))),
    "palette in a GIF": (
        "a.gif", lambda: saved("GIF", palette("P", 0, 1)), "P", {}, (RED, (0, 0, 200)),
    ),
    "colour": ("a.png", lambda: png(8, 2, *RED, 1, 2, 3), "RGB", {}, (RED, (1, 2, 3))),
    "CMYK": (
        "a.tiff", lambda: saved("TIFF", of_mode("CMYK", (0, 0, 0, 0), (0, 255, 255, 0))), "CMYK",
        {}, (WHITE, RED),
    ),
    "YCbCr": (
        "a.tiff", lambda: saved("TIFF", of_mode("YCbCr", (255, 128, 128), (76, 85, 255))), "YCbCr",
        {}, (WHITE, (254, 0, 0)),
    ),
    # --- transparency ---
    "grey and alpha": (
        "a.png", lambda: png(8, 4, 0, 255, 0, 0), "LA", {}, (BLACK, WHITE),
    ),
    "grey and alpha on grey": (
        "a.png", lambda: png(8, 4, 0, 255, 0, 0), "LA", {"background": 100}, (BLACK, (100,) * 3),
    ),
    "colour and alpha": (
        "a.png", lambda: png(8, 6, *RED, 255, 0, 0, 0, 0), "RGBA", {}, (RED, WHITE),
    ),
    "colour and alpha on a colour": (
        "a.png", lambda: png(8, 6, *RED, 255, 0, 0, 0, 0), "RGBA", {"background": [1, 2, 3]},
        (RED, (1, 2, 3)),
    ),
    "half transparent": (
        "a.png", lambda: png(8, 6, 0, 0, 0, 51, 0, 0, 0, 255), "RGBA", {}, ((204,) * 3, BLACK),
    ),
    "palette and a transparent entry": (
        "a.gif", lambda: saved("GIF", palette("P", 0, 1), transparency=1), "P", {}, (RED, WHITE),
    ),
    "palette and alpha": (
        "a.png", lambda: saved("PNG", palette("P", 0, 1), transparency=b"\xff\0"), "P", {},
        (RED, WHITE),
    ),
    "grey and a transparent level": (
        "a.png", lambda: png(8, 0, 7, 200, transparent=b"\0\xc8"), "L", {}, ((7,) * 3, WHITE),
    ),
    "1 bit and a transparent level": (
        "a.png", lambda: png(1, 0, 0, 1, transparent=b"\0\0"), "1", {"background": 9},
        ((9,) * 3, WHITE),
    ),
    "colour and a transparent colour": (
        "a.png", lambda: png(8, 2, *RED, *BLACK, transparent=bytes(6)), "RGB", {}, (RED, WHITE),
    ),
    "alpha in a WebP": (
        "a.webp",
        lambda: saved("WEBP", of_mode("RGBA", (*RED, 255), (0, 0, 0, 0)), lossless=True),
        "RGBA", {}, (RED, WHITE),
    ),
    # --- more than 8 bits ---
    "16 bits, grey": (
        "a.png", lambda: png(16, 0, 257 * 31, 257 * 156), "I;16", SIXTEEN_BITS,
        ((31,) * 3, (156,) * 3),
    ),
    "12 bits in 16": (
        "a.png", lambda: png(16, 0, 0, 4095), "I;16", TWELVE_BITS, (BLACK, WHITE),
    ),
    "16 bits, a window of them": (
        "a.png", lambda: png(16, 0, 900, 1051), "I;16", {"value_range": [1000, 1255]},
        (BLACK, (51,) * 3),
    ),
    "16 bits in a TIFF": (
        "a.tiff", lambda: tiff(np.array([257, 65535], np.uint16)), "I;16", SIXTEEN_BITS,
        ((1,) * 3, WHITE),
    ),
    "16 bits in a TIFF whose white is 0": (
        "a.tiff", lambda: tiff(np.array([0, 257], np.uint16), photometric=0), "I;16", SIXTEEN_BITS,
        (WHITE, (254,) * 3),
    ),
    "16 bits in a TIFF of big-endian numbers": (
        "a.tiff", lambda: saved("TIFF", Image.frombytes("I;16B", (2, 1), b"\1\1\xff\xff")),
        "I;16B", SIXTEEN_BITS, ((1,) * 3, WHITE),
    ),
    "12 bits in a TIFF": (
        "a.tiff", lambda: tiff(np.array([0x10, 0x0F, 0xFF], np.uint8), bits=12), "I;16",
        TWELVE_BITS, ((16,) * 3, WHITE),
    ),
    "16 bits with a sign": (
        "a.tiff", lambda: tiff(np.array([-1000, 0], np.int16)), "I", {"value_range": [-1000, 0]},
        (BLACK, WHITE),
    ),
    "32 bits": (
        "a.tiff", lambda: tiff(np.array([0, 1_000_000], np.int32)), "I",
        {"value_range": [0, 1_000_000]}, (BLACK, WHITE),
    ),
    "16 bits in a PGM": (
        "a.pgm", lambda: b"P5 2 1 65535\n" + struct.pack(">2H", 257, 65535), "I", SIXTEEN_BITS,
        ((1,) * 3, WHITE),
    ),
    "floats": (
        "a.tiff", lambda: tiff(np.array([0.2, 7], np.float32)), "F", {"value_range": [0, 1]},
        ((51,) * 3, WHITE),
    ),
    "16 bits, colour": (
        "a.png", lambda: png(16, 2, *[257 * 3] * 3, *[65535] * 3), "RGB", SIXTEEN_BITS,
        ((3,) * 3, WHITE),
    ),
    "16 bits, colour and alpha": (
        "a.png", lambda: png(16, 6, 65535, 0, 0, 65535, 0, 0, 0, 0), "RGBA", SIXTEEN_BITS,
        (RED, WHITE),
    ),
    "16 bits, grey and alpha": (
        "a.png", lambda: png(16, 4, 0, 65535, 0, 0), "RGBA", SIXTEEN_BITS, (BLACK, WHITE),
    ),
    "16 bits, colour in a TIFF": (
        "a.tiff", lambda: tiff(np.array([[257 * 3] * 3, [65535] * 3], np.uint16), photometric=2),
        "RGB", SIXTEEN_BITS, ((3,) * 3, WHITE),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "mode", "options", "pixels"), ROWS.values(), ids=ROWS)
def test_each_mode_and_depth_has_a_rule(
    tmp_path: Path, name: str, content: Bytes, mode: str, options: dict[str, Any], pixels: Any
) -> None:
    path = tmp_path / name
    path.write_bytes(content())
    with Image.open(path) as opened:
        older = {"YCbCr": "RGB"}.get(mode, "I")  # as older Pillows open it, and 16 bits
        assert opened.mode in (mode, older)
        try:
            opened.load()
        except OSError:  # Pillow before 13 does not read a TIFF in YCbCr that it wrote
            assert mode == "YCbCr"
            with pytest.raises(CorruptDataError, match="cannot be decoded"):
                decode(path, rules(**options))
            return
    found = decode(path, rules(**options))
    assert [tuple(p) for p in found[:, 0].T.tolist()] == list(pixels)
    grey = decode(path, rules(channels=1, **options))
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[0, 0] - np.array(pixels) @ weights).max() <= 1
    if options.get("value_range"):
        with pytest.raises(CorruptDataError, match=r"data\.value_range=\["):
            decode(path, rules())


REFUSED: dict[str, tuple[str, Bytes, dict[str, Any], str]] = {
    "16 bits and a transparent level": (
        "a.png", lambda: png(16, 0, 1, 2, transparent=b"\0\1"), SIXTEEN_BITS, "transparent colour",
    ),
    "16 bits of colour, cut to 12": (
        "a.png", lambda: png(16, 2, *[1] * 6), TWELVE_BITS, "Pillow reads the upper 8",
    ),
    "floats that are no numbers": (
        "a.tiff", lambda: tiff(np.array([0.5, np.nan], np.float32)), {"value_range": [0, 1]},
        "no numbers",
    ),
    "8 bits with a sign": ("a.tiff", lambda: tiff(np.array([-1, 1], np.int8)), {}, "no rule"),
    "LAB": (
        "a.tiff", lambda: saved("TIFF", of_mode("LAB", (255, 0, 0), (0, 0, 0))), {},
        "no rule for images of mode LAB",
    ),
    "64 bits": ("a.tiff", lambda: tiff(np.array([0.5, 1], np.float64)), {}, "cannot be decoded"),
    "no image": ("a.jpg", lambda: b"<html>", {}, "cannot be decoded: cannot identify image file;"),
    "nothing": ("a.png", lambda: b"", {}, "cannot be decoded"),
    "no file any more": (
        "a.png", bytes, {}, "cannot be decoded: No such file or directory; remove or replace it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_follows_no_rule_is_refused_by_name(
    tmp_path: Path, name: str, content: Bytes, options: dict[str, Any], words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content())
    if content is bytes:
        path.unlink()
    with pytest.raises(CorruptDataError) as raised:
        decoded([path], rules(**options))
    assert str(raised.value).startswith(f"{path}: ")
    assert str(raised.value).count(str(path)) == 1
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_the_tables_here_and_in_the_docs_have_every_mode() -> None:
    """The modes that Pillow opens files in; the others it has are for work in memory."""
    in_memory = {"RGBX", "RGBa", "HSV", "PA", "I;16L", "I;16N"}
    tested = {row[2] for row in ROWS.values()}
    assert tested | in_memory == EIGHT_BITS | WITH_ALPHA | DEEP
    page = (REPOSITORY / "docs" / "data.md").read_text()
    for mode in EIGHT_BITS | WITH_ALPHA | DEEP | {"LAB"}:
        assert f"`{mode}`" in page


@pytest.mark.parametrize("mode", sorted({*Image.MODES, *EIGHT_BITS, *WITH_ALPHA, *DEEP, "La"}))
def test_no_mode_ends_in_another_error(tmp_path: Path, mode: str) -> None:
    from convtrain.data.pixels import to_eight_bits

    image = Image.new(mode, (2, 1))
    try:
        found = to_eight_bits(image, 3, background=255, value_range=[0, 65535])
    except CorruptDataError:
        assert mode not in EIGHT_BITS | WITH_ALPHA | DEEP
    else:
        assert (found.mode, found.size) == ("RGB", (2, 1))


# --- orientation ----------------------------------------------------------------------------------

CORNERS = (
    np.array([[0, 80], [160, 240]], np.uint8).repeat(16, 0).repeat(16, 1)
)  # of the upright image
STORED = {  # for each orientation of EXIF's, what the camera wrote: its standard's own table
    1: CORNERS, 2: CORNERS[:, ::-1], 3: CORNERS[::-1, ::-1], 4: CORNERS[::-1],
    5: CORNERS.T, 6: CORNERS.T[::-1], 7: CORNERS.T[::-1, ::-1], 8: CORNERS.T[:, ::-1],
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_an_image_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(path, exif=exif, quality=100)
    found = decode(path, rules(channels=1, size=(32, 32)))[0]
    middles = found[8::16, 8::16].astype(int)
    assert np.abs(middles - CORNERS[8::16, 8::16]).max() <= 6


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_photograph_on_its_side_is_decoded_at_the_part_that_its_shape_needs(
    tmp_path: Path, orientation: int
) -> None:
    """Tall images of 512 x 64 pixels that are wanted at 128 x 16."""
    upright = np.add.outer(np.linspace(0, 250, 512), np.linspace(0, 5, 64)).astype(np.uint8)
    stored = upright if orientation == 1 else np.ascontiguousarray(upright.T[::-1])
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = decode(tmp_path / "a.jpg", Rules([1, 128, 16], "stretch", 10**6))[0]
    expected = np.asarray(Image.fromarray(upright).resize((16, 128), Image.Resampling.BILINEAR))
    assert np.abs(found.astype(int) - expected).max() <= 3


@pytest.mark.parametrize(
    "content", [b"Exif\0\0" + bytes(9), b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"]
)
def test_damaged_metadata_counts_as_none(tmp_path: Path, content: bytes) -> None:
    Image.fromarray(CORNERS).save(tmp_path / "a.jpg", exif=content)
    found = decoded([tmp_path / "a.jpg"], rules(size=(32, 32)))
    assert found.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "png"])
def test_of_several_frames_the_first_is_used(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (2, 1), colour) for colour in (RED, BLACK, WHITE)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(path) as opened:
        assert len(list(ImageSequence.Iterator(opened))) == 3
    assert np.abs(decode(path, rules())[:, 0].T.astype(int) - RED).max() <= 1


# --- what the configuration says ------------------------------------------------------------------


def test_keys_of_pixels_are_checked(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / name / "a.png")
    folder = ("data=image_folder", f"data.root={tmp_path}")
    config = compose(*folder, "data.background=[1,2,3]", "data.value_range=[-1,1.5]")
    assert (config.data.background, config.data.value_range) == ([1, 2, 3], [-1, 1.5])
    for override, words in {
        "data.background=256": "data.background=256: must be less than or equal to 255",
        "data.background=[1,2]": "data.background=[1, 2]",
        "data.value_range=[1,0]": "the first value becomes black and must be the smaller",
        "data.value_range=[1]": "data.value_range=[1]",
    }.items():
        with pytest.raises(ConfigError) as raised:
            compose(*folder, override)
        assert words in str(raised.value)


def test_every_file_that_is_wrong_is_named_in_one_line(tmp_path: Path) -> None:
    for index in range(40):
        Image.new("RGB", (2, 1)).save(tmp_path / f"{index:02d}.png")
    files = sorted(tmp_path.iterdir())
    for index in (3, 17, 30):
        files[index].write_bytes(b"")
    with pytest.raises(CorruptDataError) as raised:
        decoded(files, rules())
    assert str(raised.value).startswith("3 images cannot be used: ")
    assert all(str(files[index]) in str(raised.value) for index in (3, 17, 30))
    awkward = tmp_path / os.fsdecode(b"a\xe9\n.png")
    awkward.write_bytes(b"")
    with pytest.raises(CorruptDataError) as raised:
        decoded([awkward], rules())
    assert str(raised.value).isprintable()
    for path in files:
        path.write_bytes(b"")
    with pytest.raises(CorruptDataError, match=r"^40 images .*09\.png.*; and 30 more$") as raised:
        decoded(files, rules())
    assert str(files[10]) not in str(raised.value)
    assert str(raised.value).count("cannot be decoded") == 1
    assert len(str(raised.value).splitlines()) == 1


def test_memory_that_the_machine_cannot_give_is_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (2, 1)).save(tmp_path / "a.png")
    line = r"^data\.memory_gib=1e\+06: the decoded images take 7\.86e\+05 GiB, .* smaller "
    with pytest.raises(ConfigError, match=line):
        decode_files([tmp_path / "a.png"], rules(size=(2**24, 2**24)), 1e6, None, 1.0)


# --- shapes, names and metadata -------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (3, 2500), (5, 7)], ids=str)
@pytest.mark.parametrize("how", [{}, {"resize": "stretch"}, {"store_size": 20}], ids=str)
def test_small_images_and_extreme_shapes_fill_the_shape(
    tmp_path: Path, size: tuple[int, int], how: dict[str, Any]
) -> None:
    Image.new("RGB", size, RED).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", Rules([3, 16, 12], **how))
    assert found.shape == (3, 16, 12)
    assert (found == np.array(RED, np.uint8)[:, None, None]).all()


def test_a_file_is_what_it_contains_and_not_what_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(png(8, 2, *RED, 1, 2, 3))
    assert decode(tmp_path / "a.jpg", rules())[:, 0].T.tolist() == [[*RED], [1, 2, 3]]


def test_the_gamma_of_a_png_is_ignored(tmp_path: Path) -> None:
    plain = png(8, 2, 10, 90, 200, 1, 2, 3)
    checked = b"gAMA" + struct.pack(">I", 100_000)
    chunk = struct.pack(">I", 4) + checked + struct.pack(">I", zlib.crc32(checked))
    (tmp_path / "a.png").write_bytes(plain[:33] + chunk + plain[33:])  # after the header
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.info["gamma"] == 1
    assert decode(tmp_path / "a.png", rules())[:, 0].T.tolist() == [[10, 90, 200], [1, 2, 3]]


def test_progressive_and_inverted_cmyk_jpegs_have_their_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(np.stack([CORNERS, CORNERS.T, CORNERS], axis=-1))
    found = {}
    for name, progressive in (("plain.jpg", False), ("progressive.jpg", True)):
        picture.save(tmp_path / name, quality=95, progressive=progressive)
        found[name] = decode(tmp_path / name, rules(size=(32, 32)))
    assert (found["plain.jpg"] == found["progressive.jpg"]).all()
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    assert b"Adobe" in (tmp_path / "cmyk.jpg").read_bytes()  # which means that it is inverted
    red = decode(tmp_path / "cmyk.jpg", rules(size=(32, 32)))
    assert np.abs(red.astype(int) - np.array(RED)[:, None, None]).max() <= 4
