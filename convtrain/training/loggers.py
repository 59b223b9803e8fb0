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
from torch import Tensor

from convtrain.process.atomic import atomic_write


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
    which a resumed run cannot have. A metric that no column has yet, such as one that a callback
    logs, gets one.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._file: TextIO | None = None
        self._rows: csv.DictWriter[str]

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Hyperparameters stand in the run's ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        numbers = numbers_in(metrics)
        if self._file is None or not numbers.keys() <= set(self._rows.fieldnames):
            columns, rows = self._close_and_read()
            self._rows = self._open(list(dict.fromkeys([*columns, *numbers])), rows)
        assert self._file is not None
        self._rows.writerow({**numbers, "step": step})
        self._file.flush()
        self._written += 1

    def _open(self, columns: list[str], rows: list[dict[str, str]]) -> "csv.DictWriter[str]":
        """Open the file for more rows, with these columns and so far with these rows."""
        if (columns, rows) != self._close_and_read() or not self.path.exists():
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as sink:
                sink.write(text.getvalue().encode())
        self._file, self._written = self.path.open("a", newline=""), len(rows)
        return csv.DictWriter(self._file, columns, restval="")

    def _close_and_read(self) -> tuple[list[str], list[dict[str, str]]]:
        """Return the columns and the rows that are in the file; a row that was cut off is none."""
        self.finalize("closed")
        if not self.path.exists():
            return list(COLUMNS), []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1].decode()
        reader = csv.DictReader(io.StringIO(whole, newline=""))
        return list(reader.fieldnames or COLUMNS), list(reader)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    @property
    def written(self) -> int:
        """Rows written so far."""
        return self._written if self._file is not None else len(self._close_and_read()[1])

    @rank_zero_only
    def forget_after(self, step: int, written: int | None = None) -> None:
        """Take out the rows that a resumed run writes again.

        Args:
            step: of the checkpoint. What a callback has logged of a step before it, even if after
                the checkpoint was saved, stays.
            written: rows when the checkpoint was saved; None where it does not say.
        """
        columns, rows = self._close_and_read()
        if written is None:
            kept = [row for row in rows if not row["test/loss"] and int(row["step"] or 0) <= step]
        else:
            later = [row for row in rows[written:] if int(row["step"] or step) < step]
            kept = rows[:written] + later
        if self.path.exists():
            self._rows = self._open(columns, kept)


class Newest(Logger):
    """Keeps the newest value of each metric, whoever logs it, for the result.

    Args:
        values: takes them.
    """

    def __init__(self, values: dict[str, float]) -> None:
        super().__init__()
        self.values = values

    @property
    def name(self) -> str:
        return "newest"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.values.update(numbers_in(metrics))


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoardLogger, writing straight into the run directory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)
        self.folder, self._epoch_logged_at = folder, -1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write all numbers of a step as one event; what else there is, as Lightning does."""
        numbers = {tag: v for tag, v in metrics.items() if isinstance(v, int | float)}
        shown = dict(numbers)
        if "epoch" in shown and step is not None:  # training, validation and test all name it
            if step == self._epoch_logged_at:
                del shown["epoch"]
            self._epoch_logged_at = step
        if shown:
            values = [Summary.Value(tag=tag, simple_value=v) for tag, v in shown.items()]
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

    @property
    def written(self) -> dict[str, Any]:
        """Bytes of each file of events so far, and the step at which the epoch was shown last."""
        self.flush()
        sizes = {path.name: path.stat().st_size for path in self._files()}
        return {"bytes": sizes, "epoch_logged_at": self._epoch_logged_at}

    @rank_zero_only
    def forget_after(self, step: int, written: Mapping[str, Any] | None = None) -> None:
        """Take out the points that a resumed run writes again.

        Args:
            step: of the checkpoint; -1 takes out everything. What a callback has logged of a step
                before it, even if after the checkpoint was saved, stays.
            written: as it was when the checkpoint was saved; None where it does not say.
        """
        if written is not None:
            self._epoch_logged_at = written["epoch_logged_at"]
        for path in self._files():
            if step < 0:
                path.unlink()
            elif written is not None:
                forget_events(path, written["bytes"].get(path.name, 0), step)
        if step >= 0:  # a TensorBoard that is looking on has the points in its memory
            writer = self.experiment._get_file_writer()
            restart = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
            writer.add_event(restart, step + 1)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("events.out.tfevents.*"))

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


def numbers_in(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among what is logged, those in tensors too."""
    items = {n: v.item() if isinstance(v, Tensor) and v.numel() == 1 else v
             for n, v in metrics.items()}  # fmt: skip
    return {name: value for name, value in items.items() if isinstance(value, int | float)}


def forget_events(path: Path, size: int, step: int) -> None:
    """Take out of a file of events what is behind its first ``size`` bytes and not before ``step``.

    A record is its length in 8 bytes, their checksum in 4, the event, and its checksum in 4. One
    that was cut off goes, and a file that no event is left of.
    """
    content = path.read_bytes()
    kept, place, more = [content[:size]], size, size > 0
    while place + 12 <= len(content):
        end = place + 16 + int.from_bytes(content[place : place + 8], "little")
        if end > len(content):
            break
        event = Event.FromString(content[place + 12 : end - 4])
        if event.step < step:
            kept.append(content[place:end])
            more = more or event.HasField("summary")
        place = end
    if not more:
        path.unlink()
    elif len(left := b"".join(kept)) < len(content):
        with atomic_write(path) as sink:
            sink.write(left)


def tensorboard_of(loggers: Sequence[Any]) -> TensorBoard | None:
    """Return the TensorBoard logger among those of a trainer, if there is one."""
    return next((logger for logger in loggers if isinstance(logger, TensorBoard)), None)
