"""A file of arrays, images and labels: what its headers say, by the rules of docs/data.md.

The check runs without numpy, so the headers of ``.npy`` and safetensors are read here; both formats
are documented, and neither executes what a file holds.
"""

import ast
import json
import math
import struct
import zipfile
from array import array
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple, TypedDict

from convtrain.config.folders import SPLITS
from convtrain.config.label_table import SPLIT_NAMES
from convtrain.errors import MissingDataError, few, one_line

NPZ, SAFETENSORS = ".npz", ".safetensors"
NAMES = {
    **dict.fromkeys(("images", "image", "x"), "images"),
    **dict.fromkeys(("labels", "label", "targets", "y"), "labels"),
}
"""Names of arrays, alone or with a split before or behind them, to what they hold."""
DTYPES = {
    "BOOL": "b1", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4",
    "U64": "u8", "I64": "i8", "F16": "f2", "F32": "f4", "F64": "f8",
}  # fmt: skip
"""Dtypes of safetensors to those of numpy."""
INTEGERS = {"b1": "B", "u1": "B", "i1": "b", "u2": "H", "i2": "h", "u4": "I", "i4": "i",
            "u8": "Q", "i8": "q"}  # fmt: skip
"""Dtypes to the codes of :mod:`array` and :mod:`struct`."""
FLOATS = ("f2", "f4", "f8")
COMMON_CHANNELS = (1, 3, 4)
MAX_HEADER = 10_000_000  # bytes
EXPECTED = "expected images and labels, or train_images, train_labels, test_images and so on"


class Array(NamedTuple):
    """An array by its header."""

    name: str
    dtype: str  # of numpy, without the order of the bytes
    shape: tuple[int, ...]
    order: str = "<"  # of the bytes: < or >

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.shape}"


class ArrayFile(NamedTuple):
    """The images and labels of each split."""

    where: str  # the override that names the file
    splits: dict[str, tuple[Array, Array]]
    shape: list[int]  # channels, height and width of the training images
    classes: int  # number of classes; the largest index plus one
    absent: int | None  # the first class index below that number which no image has
    is_multi_label: bool

    @property
    def channels_last(self) -> bool:
        return self.where.lower().endswith(NPZ)


def read_array_file(file: str) -> ArrayFile:
    """Read the headers, and the labels if these are class indices.

    Raises:
        MissingDataError: in one line, what is wrong with the file.
    """
    where = f"data.file={file}"
    try:
        found = Path(file).stat()
        return _read(file, found.st_mtime_ns, found.st_size)
    except MissingDataError:
        raise
    except OSError as error:
        problem = f"{error.strerror or error}; set data.file=FILE.npz or FILE.safetensors"
    except Exception as error:  # damaged files raise many kinds of errors
        problem = f"cannot be read: {error or type(error).__name__}; write it again"
    raise MissingDataError(one_line(f"{where[:200]}: {problem}"))


@lru_cache(maxsize=4)  # the check and the loader read one file, as do the jobs of a sweep
def _read(file: str, _changed: int, _size: int) -> ArrayFile:
    where, path = f"data.file={file}", Path(file)
    if path.suffix.lower() not in (NPZ, SAFETENSORS):
        raise MissingDataError(
            f"{where}: is neither .npz nor .safetensors; write one with "
            f"numpy.savez(FILE, images=..., labels=...)"
        )
    headers = _npz_headers(path) if path.suffix.lower() == NPZ else _safetensors_headers(path)
    splits = _splits(headers, where)
    shapes = {name: _image_shape(images, path, where) for name, (images, _) in splits.items()}
    kinds = {name: _kind_of_labels(*arrays, where) for name, arrays in splits.items()}
    if len(set(kinds.values())) > 1:
        named = ", ".join(str(labels) for _, labels in splits.values())
        raise MissingDataError(
            f"{where}: the labels of its splits are of different kinds: {named}; write class "
            f"indices in every split, or (N, classes) numbers in every split"
        )
    if several := kinds["train"]:
        return ArrayFile(where, splits, shapes["train"], several, None, is_multi_label=True)
    present = set[int]()
    for _, labels in splits.values():
        present.update(_integers(path, labels))
    if (least := min(present)) < 0:
        raise MissingDataError(
            f"{where}: a label is {least}; the classes count from 0, so leave such images out"
        )
    count = max(present) + 1
    absent = next((label for label in range(count) if label not in present), None)
    return ArrayFile(where, splits, shapes["train"], count, absent, is_multi_label=False)


def _splits(arrays: Sequence[Array], where: str) -> dict[str, tuple[Array, Array]]:
    """Return images and labels by split, in the order of :data:`SPLITS`."""
    found = dict[tuple[str, str], Array]()
    for each in arrays:
        first, _, last = each.name.lower().partition("_")
        split, what = ("train", first) if not last else (first, last)
        if what in SPLIT_NAMES:
            split, what = what, split
        if split in SPLIT_NAMES and what in NAMES:
            place = SPLIT_NAMES[split], NAMES[what]
            if place in found:
                both = f"{found[place].name} and {each.name}"
                raise MissingDataError(f"{where}: {both} are both {' '.join(place)}; keep one")
            found[place] = each
    given = [split for split in SPLITS if any(split == place[0] for place in found)]
    if "train" not in given:
        there = few(each.name for each in arrays) or "nothing"
        raise MissingDataError(f"{where}: holds {there}; {EXPECTED}")
    splits = dict[str, tuple[Array, Array]]()
    for split in given:
        for what, other in (("images", "labels"), ("labels", "images")):
            if (split, what) not in found:
                has = found[split, other].name
                raise MissingDataError(
                    f"{where}: has {has} and no {split}_{what} beside it; {EXPECTED}"
                )
        images, labels = found[split, "images"], found[split, "labels"]
        if not images.shape or images.shape[:1] != labels.shape[:1] or not images.shape[0]:
            raise MissingDataError(
                f"{where}: {images} and {labels} must have the same number of rows, at least one"
            )
        splits[split] = images, labels
    return splits


def _image_shape(images: Array, path: Path, where: str) -> list[int]:
    """Return channels, height, width; refuse arrays whose axes are probably in another order."""
    if images.dtype not in (*INTEGERS, *FLOATS):
        raise MissingDataError(f"{where}: {images} are no images; give uint8, or floats in 0-1")
    suffix = path.suffix.lower()
    order = "N, height, width, channels" if suffix == NPZ else "N, channels, height, width"
    if len(images.shape) == 3:
        return [1, *images.shape[1:]]
    if len(images.shape) != 4 or 0 in images.shape:
        raise MissingDataError(f"{where}: {images}: expected (N, height, width) or ({order})")
    _, *sides = images.shape
    channels, height, width = sides if suffix != NPZ else (sides[2], sides[0], sides[1])
    other = sides[0] if suffix == NPZ else sides[2]  # where the channels are in the other format
    if channels not in COMMON_CHANNELS and other in COMMON_CHANNELS:
        do = "numpy.moveaxis(images, 1, 3)" if suffix == NPZ else "images.permute(0, 3, 1, 2)"
        raise MissingDataError(
            f"{where}: {images}: the order in {suffix} is ({order}), so that these would have "
            f"{channels} channels; write {do}"
        )
    return [channels, height, width]


def _kind_of_labels(images: Array, labels: Array, where: str) -> int:
    """Return 0 for class indices; for any number of labels, the number of columns."""
    shape = labels.shape
    is_column = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if is_column and labels.dtype in INTEGERS:
        return 0
    if len(shape) == 2 and shape[1] > 1 and labels.dtype in (*INTEGERS, *FLOATS):
        return shape[1]
    raise MissingDataError(
        f"{where}: {labels}: expected integers, (N) or (N, 1), which are classes, or (N, classes) "
        f"numbers in 0-1, which are any number of labels"
    )


# --- the two formats ------------------------------------------------------------------------------


def _npz_headers(path: Path) -> list[Array]:
    with zipfile.ZipFile(path) as archive:
        found = []
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    found.append(_npy_header(file, name.removesuffix(".npy")))
        return found


def _npy_header(file: IO[bytes], name: str) -> Array:
    """Read what numpy.lib.format describes, up to the first value."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise ValueError(f"{name} is no array of numpy")
    size, code = (2, "<H") if magic[6] == 1 else (4, "<I")
    (length,) = struct.unpack(code, file.read(size))
    if length > MAX_HEADER:
        raise ValueError(f"the header of {name} has {length} bytes")
    header = ast.literal_eval(file.read(length).decode("utf-8" if magic[6] > 2 else "latin1"))
    descr = header["descr"]
    if not isinstance(descr, str):
        return Array(name, "a structure", tuple(header["shape"]))
    order, dtype = (descr[0], descr[1:]) if descr[0] in "<>|=" else ("<", descr)
    return Array(name, dtype, tuple(header["shape"]), ">" if order == ">" else "<")


class _Entry(TypedDict):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def _safetensors_headers(path: Path) -> list[Array]:
    return [
        Array(name, DTYPES.get(each["dtype"], each["dtype"]), tuple(each["shape"]))
        for name, each in _safetensors_header(path)[0].items()
        if name != "__metadata__"
    ]


def _safetensors_header(path: Path) -> tuple[dict[str, _Entry], int]:
    """Return the header, and where the values begin."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER:
            raise ValueError("it has no header of safetensors")
        return json.loads(file.read(length)), 8 + length


def _integers(path: Path, labels: Array) -> Sequence[int]:
    """Read integers, (N) or (N, 1)."""
    code = INTEGERS[labels.dtype]
    count = math.prod(labels.shape) * struct.calcsize(code)
    if path.suffix.lower() == NPZ:
        with zipfile.ZipFile(path) as archive, archive.open(f"{labels.name}.npy") as file:
            _npy_header(file, labels.name)
            content = file.read(count)
    else:
        header, start = _safetensors_header(path)
        first, _ = header[labels.name]["data_offsets"]
        with path.open("rb") as plain:
            plain.seek(start + first)
            content = plain.read(count)
    if len(content) != count:
        raise ValueError(f"{labels.name} is shorter than its header says")
    values = array(code, content)
    if (labels.order == ">") == (struct.pack("=H", 1) == struct.pack("<H", 1)):
        values.byteswap()
    return values
