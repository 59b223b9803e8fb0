"""Killed trainings on images of files: what they resume with is read anew, to the same bits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.test_resume import SMALL, Whole

CLASSES = ("ant", "bee", "cat")
SHARED = [text for text in SMALL if not text.startswith("data=") and "_size=" not in text]


def written(folder: Path, name: str) -> list[str]:
    """Write 60 images for training and 12 for a test; return the overrides that name them."""
    pixels = np.random.default_rng(0).integers(0, 256, (72, 18, 16, 3), dtype=np.uint8)
    if name == "arrays":
        labels = np.arange(72) % 3
        parts = {"train": slice(0, 60), "test": slice(60, 72)}
        arrays = {f"{split}_images": pixels[part] for split, part in parts.items()}
        labelled = {f"{split}_labels": labels[part] for split, part in parts.items()}
        np.savez(folder / "a.npz", allow_pickle=False, **arrays, **labelled)
        return [f"data.file={folder / 'a.npz'}"]
    rows = ["path,label,split"]
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
        rows.append(f"{index}.png,{CLASSES[index % 3]},{'train' if index < 60 else 'test'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return [f"data.file={folder / 'labels.csv'}"]


@pytest.mark.parametrize(
    ("name", "style", "place", "number"),
    [
        ("csv", "functional", "step's end", 6),
        ("arrays", "nn", "batch", 9),
        pytest.param("csv", "nn", "validation", 2, marks=pytest.mark.slow),
        pytest.param("arrays", "functional", "checkpoint's write", 20, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(
    tmp_path: Path, name: str, style: str, place: str, number: int
) -> None:
    files = written(tmp_path, name)
    typed = (f"data={name}", *files, f"model={style}", "data.batch_size=8",
             "data.eval_batch_size=4", "trainer.max_epochs=2", "augment=crop_flip",
             "augment.random_crop=2")  # fmt: skip
    whole = Whole(tmp_path / "runs", (*SHARED, *typed))
    assert whole.check_killed(place, number)


@pytest.mark.parametrize(
    ("style", "place", "number", "typed"),
    [
        ("functional", "step's end", 9, ["data.memory_gib=1e-9", "augment.workers=2"]),
        pytest.param("nn", "validation", 2, ["data.decode=each_epoch"], marks=pytest.mark.slow),
        pytest.param("nn", "batch", 10, ["data.memory_gib=1e-9"], marks=pytest.mark.slow),
    ],
)
def test_crops_of_stored_images_resume_to_the_same_bits(
    tmp_path: Path, style: str, place: str, number: int, typed: list[str]
) -> None:
    files = written(tmp_path, "csv")
    sized = (f"data.cache_dir={tmp_path}", "data.store_size=14", "data.shape=[3,12,12]",
             "augment.crop_scale=[0.3,1]", "data.batch_size=8", "data.eval_batch_size=4",
             "trainer.max_epochs=2")  # fmt: skip
    overrides = (*SHARED, "data=csv", *files, *sized, *typed, f"model={style}")
    whole = Whole(tmp_path / "runs", overrides)
    assert whole.check_killed(place, number)
