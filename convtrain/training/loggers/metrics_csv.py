"""``metrics.csv``: one row for each log entry, written at once."""

import csv
import io
from pathlib import Path
from typing import TextIO

from pytorch_lightning.utilities import rank_zero_only

from convtrain.process.atomic import atomic_write
from convtrain.run.result import METRICS
from convtrain.training.loggers.numbers import NumbersLogger

COLUMNS = ("step", "epoch", "train/loss", "train/acc", *METRICS, "lr", "images_per_second")


class MetricsCsv(NumbersLogger):
    """Appends a row for each log entry; a new metric adds a column.

    Lightning's CSVLogger rewrites the file at every save and deletes one that exists, so a resumed
    run would lose its earlier rows.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._file: TextIO | None = None
        self._writer: csv.DictWriter[str]

    @rank_zero_only
    def log_numbers(self, numbers: dict[str, float], step: int | None) -> None:
        if self._file is None or not numbers.keys() <= set(self._writer.fieldnames):
            columns, rows = self._close_and_read()
            self._open(list(dict.fromkeys([*columns, *numbers])), rows)
        assert self._file is not None
        self._writer.writerow({**numbers, "step": step})
        self._file.flush()
        self._row_count += 1

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    @property
    def written(self) -> int:
        """Number of rows in the file."""
        return self._row_count if self._file is not None else len(self._close_and_read()[1])

    @rank_zero_only
    def forget_after(self, step: int, written: int | None = None) -> None:
        """Remove the rows after a checkpoint, which a resumed run writes again.

        Args:
            step: optimiser step of the checkpoint. Rows that a callback logged later for an earlier
                step are kept.
            written: number of rows when the checkpoint was saved; None if it does not hold it.
        """
        columns, rows = self._close_and_read()
        if written is None:
            kept = [row for row in rows if not row["test/loss"] and int(row["step"] or 0) <= step]
        else:
            later = [row for row in rows[written:] if int(row["step"] or step) < step]
            kept = rows[:written] + later
        if self.path.exists():
            self._open(columns, kept)

    def _open(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        """Open the file for appending; rewrite it first unless it holds these columns and rows."""
        if not self.path.exists() or (columns, rows) != self._close_and_read():
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as file:
                file.write(text.getvalue().encode())
        self._file, self._row_count = self.path.open("a", newline=""), len(rows)
        self._writer = csv.DictWriter(self._file, columns, restval="")

    def _close_and_read(self) -> tuple[list[str], list[dict[str, str]]]:
        """Return the columns and the complete rows of the file; drop a row that was cut off."""
        self.finalize("closed")
        if not self.path.exists():
            return list(COLUMNS), []
        content = self.path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1].decode()
        reader = csv.DictReader(io.StringIO(complete, newline=""))
        return list(reader.fieldnames or COLUMNS), list(reader)
