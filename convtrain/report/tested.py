"""What the predictions of a run's test say: by class, by confidence, and image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from convtrain.errors import CorruptDataError, first_line
from convtrain.report.calibration import Calibration, calibration_of
from convtrain.report.classes import ClassCounts, confusion_of, counts_of, label_counts
from convtrain.report.mistakes import most_confident, read_pictures, store_pictures
from convtrain.run.directory import Run

if TYPE_CHECKING:
    from convtrain.data.images import Images


class Mistake(NamedTuple):
    """A wrong prediction, with its picture if it was stored, uint8 (channels, height, width)."""

    picture: np.ndarray | None
    true: str
    predicted: str
    probability: float
    of_true: float


@dataclass(frozen=True)
class Tested:
    """The predictions of a test. Images with several labels have no confusion and no calibration.

    Attributes:
        split: ``test``, or ``validation`` if the data has no test images.
        images: their number; ``wrong`` of them are not predicted correctly in every label.
        counts: by class.
        confusion: int64 (true class, predicted class).
        mistakes: the most confident first.
    """

    split: str
    images: int
    wrong: int
    counts: ClassCounts
    confusion: np.ndarray | None = None
    calibration: Calibration | None = None
    mistakes: Sequence[Mistake] = ()


def read_tested(run: Run) -> Tested | None:
    """Read the predictions that the run's own test has stored; None if there are none.

    Raises:
        CorruptDataError: they cannot be read.
    """
    if (evaluation := run.read_evaluation()) is None:
        return None
    names = evaluation["class_names"]
    split = "validation" if evaluation["split"] == "val" else evaluation["split"]
    if (rows := _read_rows(run)) is None or not rows.num_rows:
        return None
    if evaluation["multi_label"]:
        targets, guessed = (_as_masks(rows[key], len(names)) for key in ("target", "predicted"))
        counts = label_counts(targets, guessed, names)
        wrong = int((targets != guessed).any(1).sum())
        return Tested(split, rows.num_rows, wrong, counts)
    targets, guessed, probability = _columns(rows, "target", "predicted", "probability")
    confusion = confusion_of(targets, guessed, len(names))
    right = targets == guessed
    chosen = most_confident(~right, probability)
    index, of_true = _columns(rows, "index", "target_probability")
    pictures = read_pictures(run.mistakes())
    return Tested(
        split=split,
        images=len(right),
        wrong=int((~right).sum()),
        counts=counts_of(confusion, names),
        confusion=confusion,
        calibration=calibration_of(probability, right) if np.isfinite(probability).all() else None,
        mistakes=[
            Mistake(
                pictures.get(int(index[row])),
                names[targets[row]],
                names[guessed[row]],
                float(probability[row]),
                float(of_true[row]),
            )
            for row in chosen.tolist()
        ],
    )


def store_mistakes(run: Run, images: "Images") -> None:
    """Store the pictures of the most confident mistakes of the run's test on these images."""
    rows = _read_rows(run)
    if rows is None or pa.types.is_nested(rows["target"].type):
        return
    targets, guessed, probability, index = _columns(
        rows, "target", "predicted", "probability", "index"
    )
    chosen = index[most_confident(targets != guessed, probability)]
    if len(chosen):
        store_pictures(images, chosen.astype(np.int64), run.mistakes())


def _read_rows(run: Run) -> pa.Table | None:
    """Return the rows of the images whose class is known."""
    file = run.predictions()
    if not file.is_file():
        return None
    try:
        rows = pq.ParquetFile(file).read()  # read_table imports pyarrow's datasets first
        return rows.filter(pc.is_valid(rows["target"]))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise CorruptDataError(f"{file}: damaged, {first_line(error)}") from error


def _columns(rows: pa.Table, *names: str) -> list[np.ndarray]:
    return [rows[name].to_numpy() for name in names]


def _as_masks(lists: pa.ChunkedArray, classes: int) -> np.ndarray:
    """Return which classes each list names: bool (N, classes)."""
    masks = np.zeros((len(lists), classes), bool)
    rows = np.repeat(np.arange(len(lists)), pc.list_value_length(lists).to_numpy())
    masks[rows, pc.list_flatten(lists).to_numpy()] = True
    return masks
