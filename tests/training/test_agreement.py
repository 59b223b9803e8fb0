"""The fingerprint of the data tells every change that a resumed run would notice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from convtrain.data.images import Images, Splits
from convtrain.data.pixel_file import PixelFile
from convtrain.training.callbacks.rank_consistency import data_fingerprint

SHAPE = (1, 4, 4)


def made(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=random)
    return pixels, torch.randint(0, 3, (count,), generator=random)


Parts = list[tuple[torch.Tensor, torch.Tensor]]


def add(parts: Parts) -> None:
    pixels, labels = parts[0]
    parts[0] = (torch.cat([pixels, pixels[:1]]), torch.cat([labels, labels[:1]]))


def delete(parts: Parts) -> None:
    parts[0] = (parts[0][0][1:], parts[0][1][1:])


def swap(parts: Parts) -> None:
    order = torch.tensor([1, 0, *range(2, len(parts[0][1]))])
    parts[0] = (parts[0][0][order], parts[0][1])


def relabel(parts: Parts) -> None:
    parts[1][1][2] = (parts[1][1][2] + 1) % 3


def redraw(parts: Parts) -> None:
    parts[2][0][3, 0, 0, 0] ^= 1


def move(parts: Parts) -> None:
    """One image goes from validation into training."""
    (train, labels), (val, of_val) = parts[:2]
    parts[0] = (torch.cat([train, val[:1]]), torch.cat([labels, of_val[:1]]))
    parts[1] = (val[1:], of_val[1:])


CHANGES: tuple[Callable[[Parts], None], ...] = (add, delete, swap, relabel, redraw, move)


def in_memory(parts: Parts, folder: Path) -> Splits:
    train, val, test = (Images(pixels, labels) for pixels, labels in parts)
    return Splits(train, val, test)


def in_a_file(parts: Parts, folder: Path) -> Splits:
    folder.mkdir()
    found: list[Images] = []
    for name, (pixels, labels) in zip(("train", "val", "test"), parts, strict=True):
        pixels.numpy().astype(np.uint8).tofile(folder / name)
        found.append(Images(PixelFile(folder / name, SHAPE), labels))
    train, val, test = found
    return Splits(train, val, test)


@pytest.mark.parametrize("held", [in_memory, in_a_file])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_data_is_told(
    change: Callable[[Parts], None], held: Callable[[Parts, Path], Splits], tmp_path: Path
) -> None:
    parts = [made(count, seed) for seed, count in enumerate((12, 6, 7))]
    before = data_fingerprint(held(parts, tmp_path / "a"))
    assert data_fingerprint(held(parts, tmp_path / "b")) == before
    assert data_fingerprint(in_memory(parts, tmp_path)) == before
    change(parts)
    assert data_fingerprint(held(parts, tmp_path / "c")) != before
