"""Images of one's own, in folders named by class, decoded once into one tensor."""

import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from convtrain.config.folders import IMAGE_SUFFIXES, refuse_outside, training_folder
from convtrain.data.images import Images, Splits, divide
from convtrain.errors import CorruptDataError, MissingDataError

GIB = 1 << 30


def load_image_folder(
    *,
    root: str,
    classes: list[str],
    shape: list[int],
    resize: str,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    memory_gib: float,
    max_pixels: int,
) -> Splits:
    """Decode a folder of images: ``root/train`` with ``root/test``, or ``root`` alone, to be split.

    Args:
        shape: channels (1 for grey, 3 for colour), height and width of every image.
        resize: ``crop`` keeps the proportions and cuts the middle, ``stretch`` distorts.
        memory_gib: a split that decodes to more is kept in a memory-mapped temporary file.
        max_pixels: an image that would decode to more is refused.

    Raises:
        MissingDataError: a folder is missing or holds no images, or a link leads out of ``root``.
        CorruptDataError: an image cannot be decoded or is too large; names the file.
    """
    folder = training_folder(Path(root))
    decode: dict[str, Any] = {
        "classes": classes,
        "shape": shape,
        "resize": resize,
        "memory_gib": memory_gib,
        "max_pixels": max_pixels,
        "root": Path(root),
    }
    everything = _decode_folder(folder, **decode)
    held_out = Path(root) / "test"
    apart = folder != Path(root) and held_out.is_dir()
    test = _decode_folder(held_out, **decode) if apart else None
    return divide(
        everything,
        val_fraction=val_fraction,
        test=test,
        test_fraction=test_fraction,
        seed=split_seed,
    )


def _decode_folder(
    folder: Path,
    *,
    classes: list[str],
    shape: list[int],
    resize: str,
    memory_gib: float,
    max_pixels: int,
    root: Path,
) -> Images:
    files = [
        (path, label) for label, name in enumerate(classes) for path in _images(folder / name, root)
    ]
    if not files:
        raise MissingDataError(
            f"{folder} holds no images; expected {folder}/{classes[0]}/*.jpg "
            f"(or {', '.join(IMAGE_SUFFIXES[2:])}) and one such folder for each class"
        )
    pixels = _allocate((len(files), *shape), memory_gib)

    def decode(position: int) -> None:
        pixels[position] = _decode(files[position][0], shape, resize, max_pixels)

    with _any_size(), ThreadPoolExecutor() as pool:
        for _ in pool.map(decode, range(len(files))):
            pass
    labels = torch.tensor([label for _, label in files])
    return Images(torch.from_numpy(pixels), labels)


def _images(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the images below a folder; directories that are links are not entered."""
    if not folder.is_dir():
        return
    refuse_outside(folder, root)
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        if path.is_symlink():
            refuse_outside(path, root)
        yield path


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Leave it to ``max_pixels`` which images are too large, with their size in the message."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _allocate(shape: tuple[int, ...], memory_gib: float) -> np.ndarray:
    if np.prod(shape) <= memory_gib * GIB:
        return np.empty(shape, dtype=np.uint8)
    with tempfile.NamedTemporaryFile(prefix="convtrain-images-") as file:
        return np.memmap(file.name, dtype=np.uint8, mode="w+", shape=shape)


def _decode(path: Path, shape: list[int], resize: str, max_pixels: int) -> np.ndarray:
    """Return one image as uint8 (channels, height, width)."""
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            if image.width * image.height > max_pixels:
                raise CorruptDataError(
                    f"{path}: {image.width}x{image.height} pixels are more than "
                    f"data.max_pixels={max_pixels}; remove it, or raise the limit"
                )
            picture = image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptDataError(
            f"{path}: cannot be decoded: {error}; remove or replace it"
        ) from error
    if picture.size != (width, height):
        if resize == "crop":
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
        else:
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(picture)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
