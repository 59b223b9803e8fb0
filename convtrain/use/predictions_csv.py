"""Predictions of files as CSV, which is readable while it grows.

A row has the path, the label and its probability, the next most probable labels, and the error of a
file that cannot be used. With any number of labels, those that are present are in one cell.
"""

import csv
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from convtrain.errors import ConfigError, OccupiedError, TrainingError
from convtrain.process.lock import take
from convtrain.process.signals import Interrupted
from convtrain.use.predict_files import FilePrediction, Named

STDOUT = "-"
BETWEEN_LABELS = ";"  # in a cell
FORMULA = tuple("=+-@\t\r")  # a spreadsheet computes a cell that begins so


class PredictionsCsv:
    """Writes a row for each file. ``place`` is where the rows are while they are written."""

    def __init__(self, file: FileIO, place: str, topk: int, multi_label: bool) -> None:
        self.place, self.rows = place, 0
        self._file, self._topk, self._multi_label = file, topk, multi_label
        self._line = csv.writer(self, lineterminator="\r\n")  # so that it quotes both characters
        self._lines: list[str] = []
        first = 1 if multi_label else 2
        ranked = [
            name for n in range(first, topk + 1) for name in (f"label_{n}", f"probability_{n}")
        ]
        head = ("labels", "probabilities") if multi_label else ("label", "probability")
        self._line.writerow(["path", *head, *ranked, "error"])
        self._ranked = len(ranked) // 2

    def write(self, line: str) -> None:
        """Take a line from the csv module."""
        self._lines.append(line.removesuffix("\r\n") + "\n")

    def add(self, predictions: Iterable[FilePrediction]) -> None:
        """Write rows, and hand them to the system.

        Raises:
            TrainingError: the disk is full or cannot be written to.
            Interrupted: nobody reads standard output any more.
        """
        for each in predictions:
            names, probabilities = self._joined(each.labels)
            others = each.top if self._multi_label else each.others
            ranked = [c for name, p in others[: self._ranked] for c in (name, f"{p:.6g}")]
            ranked += [""] * (2 * self._ranked - len(ranked))
            self._line.writerow([as_path(each.path), names, probabilities, *ranked, each.error])
            self.rows += 1
        lines, self._lines = "".join(self._lines), []
        data = lines.encode(errors="backslashreplace")  # names need not be UTF-8
        try:
            while data:
                data = data[self._file.write(data) :]
        except BrokenPipeError as error:
            raise Interrupted(signal.SIGPIPE) from error
        except OSError as error:
            raise TrainingError(f"{self.place}: not written: {error.strerror}") from error

    @staticmethod
    def _joined(labels: Named) -> tuple[str, str]:
        names = BETWEEN_LABELS.join(name for name, _ in labels)
        return names, BETWEEN_LABELS.join(f"{p:.6g}" for _, p in labels)


def as_path(path: str) -> str:
    """Return a path that no spreadsheet takes for a formula: ``./=1+1.png`` is the same file."""
    return os.path.join(".", path) if path.startswith(FORMULA) else path  # noqa: PTH118


@contextmanager
def predictions_csv(name: str, topk: int, multi_label: bool) -> Iterator[PredictionsCsv]:
    """Open a CSV file, or standard output for ``-``.

    The rows go into NAME.part, which gets its name when the block ends. When the block fails, the
    rows stay in NAME.part.

    Raises:
        ConfigError: the file cannot be opened.
        OccupiedError: another process is writing it.
    """
    if name == STDOUT:
        sys.stdout.flush()
        with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as file:
            yield PredictionsCsv(file, "standard output", topk, multi_label)
        return
    path = Path(name).resolve()  # a link stays a link
    is_special = path.exists() and not path.is_file()  # such as a pipe
    part = path if is_special else path.with_name(f"{path.name}.part")
    with ExitStack() as files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = files.enter_context(part.open("ab", buffering=0))
            if not is_special:
                if not take(file):
                    raise OccupiedError(f"--csv {name}: another process is writing it")
                file.truncate(0)
        except OSError as error:
            raise ConfigError(f"--csv {name}: cannot be written: {error.strerror}") from error
        written = PredictionsCsv(file, str(part), topk, multi_label)
        try:
            yield written
        except BaseException:
            if not (written.rows or is_special):
                part.unlink()
            raise
        if not is_special:
            os.fsync(file.fileno())
            part.replace(path)
