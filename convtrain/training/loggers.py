"""What a run writes while it trains: TensorBoard events and ``metrics.csv``."""

import csv
import io
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import google_crc32c
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer import record_writer

from convtrain.files import written_whole


def masked_crc32c(content: bytes) -> int:
    """Return the checksum of a record, as TFRecord files have it."""
    crc: int = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


# TensorBoard's own is a loop in Python: 86 ns a byte, in which nothing else can run.
record_writer.masked_crc32c = masked_crc32c

COLUMNS = (
    "step", "epoch", "train/loss", "train/acc", "train/loss_epoch", "train/acc_epoch",
    "val/loss", "val/acc", "test/loss", "test/acc", "lr", "images_per_second",
)  # fmt: skip


class MetricsCsv(Logger):
    """``metrics.csv``: a row for each entry of the log, appended as it comes.

    Lightning's own CSVLogger writes the whole file anew at every save and deletes what it finds,
    which a resumed run cannot have. A metric that is not among ``COLUMNS`` is left out.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._file: TextIO | None = None

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Hyperparameters stand in the run's ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        file = self._file or self._open()
        self._rows.writerow({**metrics, "step": step})
        file.flush()

    def _open(self) -> TextIO:
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", newline="")
        self._rows = csv.DictWriter(self._file, COLUMNS, restval="", extrasaction="ignore")
        if new:
            self._rows.writeheader()
        return self._file

    @rank_zero_only
    def finalize(self, status: str) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @rank_zero_only
    def forget_after(self, step: int, size: int | None = None) -> None:
        """Take out the rows that a resumed run writes again, and its test of before.

        Args:
            step: of the checkpoint.
            size: of the file when the checkpoint was saved, in bytes; None where it does not say.
        """
        self.finalize("resumed")
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        if size and len(content) >= size and content[size - 1 : size] == b"\n":
            content = content[:size]
        text, kept = io.StringIO(newline=""), []
        for row in csv.DictReader(io.StringIO(content.decode(), newline="")):
            if not row["test/loss"] and int(row["step"] or 0) <= step:
                kept.append(row)
        writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        with written_whole(self.path) as sink:
            sink.write(text.getvalue().encode())


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoardLogger, writing straight into the run directory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write all numbers of a step as one event; what else there is, as Lightning does."""
        numbers = {tag: v for tag, v in metrics.items() if isinstance(v, int | float)}
        if numbers:
            values = [Summary.Value(tag=tag, simple_value=v) for tag, v in numbers.items()]
            event = Event(step=step, wall_time=time.time(), summary=Summary(value=values))
            self.experiment._get_file_writer().event_writer.add_event(event)
        if len(numbers) < len(metrics):
            rest = {tag: value for tag, value in metrics.items() if tag not in numbers}
            super().log_metrics(rest, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file, except between training and test, which Lightning calls a success.

        A run writes one file: TensorBoard reads several in the order of their names, which within
        a second is not the order in which they were opened.
        """
        if status == "success":
            self.flush()
        else:
            super().finalize(status)

    @rank_zero_only
    def save(self) -> None:
        """Write no hparams.yaml beside ``config.yaml``, which says the same."""

    @rank_zero_only
    def flush(self) -> None:
        """Hand all points to the system; those before a checkpoint are never written again."""
        self.experiment.flush()

    @rank_zero_only
    def forget_after(self, step: int) -> None:
        """Tell TensorBoard to forget the points that a resumed run writes again."""
        writer = self.experiment._get_file_writer()
        restart = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        writer.add_event(restart, step + 1)

    @rank_zero_only
    def log_results(self, settings: dict[str, Any], metrics: dict[str, float], step: int) -> None:
        """Fill the HPARAMS page with the run's settings and its final metrics.

        The metrics' curves exist already, so they are not logged a second time.
        """
        from torch.utils.tensorboard.summary import hparams

        known = {
            key: v if isinstance(v, bool | int | float) else str(v) for key, v in settings.items()
        }
        writer = self.experiment._get_file_writer()
        for summary in hparams(known, metrics):
            writer.add_summary(summary, step)

    @rank_zero_only
    def log_text(self, tag: str, text: str, step: int = 0) -> None:
        """Show text as it is, in fixed-width letters."""
        self.experiment.add_text(tag, re.sub(r"^", "    ", text, flags=re.MULTILINE), step)


def tensorboard_of(loggers: Sequence[Any]) -> TensorBoard | None:
    """Return the TensorBoard logger among those of a trainer, if there is one."""
    return next((logger for logger in loggers if isinstance(logger, TensorBoard)), None)
