"""TensorBoard's event file in the run directory."""

import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

import google_crc32c
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import FileWriter, SummaryWriter
from torch.utils.tensorboard.summary import hparams

from convtrain.config.monitors import measured_names
from convtrain.config.schema import Config
from convtrain.process.atomic import atomic_write
from convtrain.run.result import EVALUATED, Result, metric_of


class Written(TypedDict):
    """Size of each event file by name, and the step at which the epoch was logged last."""

    bytes: dict[str, int]
    epoch_logged_at: int


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoardLogger, but it writes a single event file into the run directory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)
        self.folder, self._epoch_logged_at = folder, -1

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        is_open = self._experiment is not None
        writer: SummaryWriter = super().experiment
        if not is_open:
            # TensorBoard's checksum is a Python loop that holds the GIL for 110 ns a byte.
            records = writer._get_file_writer().event_writer._async_writer._writer
            records.write = lambda data: records._writer.write(record(data))
        return writer

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write all numbers of a log entry as one event, and other values as Lightning does."""
        numbers = {tag: v for tag, v in metrics.items() if isinstance(v, int | float)}
        others = {tag: value for tag, value in metrics.items() if tag not in numbers}
        if "epoch" in numbers and step is not None:  # training, validation and test all log it
            if step == self._epoch_logged_at:
                del numbers["epoch"]
            self._epoch_logged_at = step
        if numbers:
            values = [Summary.Value(tag=tag, simple_value=v) for tag, v in numbers.items()]
            self._file.add_summary(Summary(value=values), step)
        if others:
            super().log_metrics(others, step)

    @rank_zero_only
    def log_text(self, tag: str, text: str, step: int = 0) -> None:
        """Show text unchanged, in a fixed-width font."""
        self.experiment.add_text(tag, re.sub(r"^", "    ", text, flags=re.MULTILINE), step)

    @rank_zero_only
    def log_run(self, config: Config, result: Result, step: int) -> None:
        """Log a finished run for the page HPARAMS: its settings, and what was measured at last."""
        names = (*EVALUATED, *measured_names(config.metrics))
        values = ((name, metric_of(result, name)) for name in names)
        metrics = {name: v for name, v in values if isinstance(v, int | float)}
        self.log_results(compared_settings(config), metrics, step)

    def log_results(
        self, settings: Mapping[str, object], metrics: Mapping[str, float], step: int
    ) -> None:
        """Fill the HPARAMS page. The metrics get no curves here, because they have some already."""
        shown = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in settings.items()}
        for summary in hparams(shown, dict(metrics)):
            self._file.add_summary(summary, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the file open after ``success``, which Lightning also reports before the test.

        A run writes a single file, because TensorBoard reads files in the order of their names, and
        that is not the order of creation for files of the same second.
        """
        if status == "success":
            self.experiment.flush()
        else:
            super().finalize(status)

    @rank_zero_only
    def save(self) -> None:
        """Write no hparams.yaml: ``config.yaml`` holds the same values."""

    @property
    def written(self) -> Written:
        self.experiment.flush()
        sizes = {path.name: path.stat().st_size for path in self._files()}
        return {"bytes": sizes, "epoch_logged_at": self._epoch_logged_at}

    @rank_zero_only
    def forget_after(self, step: int, written: Written | None = None) -> None:
        """Remove the events after a checkpoint, which a resumed run writes again.

        Args:
            step: optimiser step of the checkpoint; -1 removes all events. Events that a callback
                logged later for an earlier step are kept.
            written: from the checkpoint; None if it does not hold it.
        """
        if written is not None:
            self._epoch_logged_at = written["epoch_logged_at"]
        for path in self._files():
            if step < 0:
                path.unlink()
            elif written is not None:
                remove_events(path, written["bytes"].get(path.name, 0), step)
        if step >= 0:  # an open TensorBoard drops the points from this step on
            restart = Event(session_log=SessionLog(status=SessionLog.START))
            self._file.add_event(restart, step + 1)

    @property
    def _file(self) -> FileWriter:
        return self.experiment._get_file_writer()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("events.out.tfevents.*"))


def compared_settings(config: Config) -> dict[str, object]:
    """Return the settings that TensorBoard's HPARAMS page compares."""
    settings = {
        "model": config.model.style,
        "network": config.model_name,
        "data": config.data.name,
        "batch_size": config.data.batch_size,
        "max_epochs": config.trainer.max_epochs,
        "precision": config.trainer.precision,
        "seed": config.seed,
        "loss": config.loss_name,
    }
    for group in ("optimizer", "scheduler", "augment"):
        for key, value in getattr(config, group).model_dump(exclude_defaults=True).items():
            settings[group if key == "name" else f"{group}.{key}"] = value
    return settings


def record(data: bytes) -> bytes:
    """Return a record of an event file: length, checksum of the length, data, checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF  # as TFRecord files mask it
    return struct.pack("<I", masked)


def remove_events(path: Path, size: int, step: int) -> None:
    """Remove the events after the first ``size`` bytes of a file, unless they precede ``step``.

    A record that was cut off is removed too, and so is a file without events.
    """
    content = path.read_bytes()
    kept, start, has_events = [content[:size]], size, size > 0
    while start + 12 <= len(content):
        end = start + 16 + int.from_bytes(content[start : start + 8], "little")
        if end > len(content):
            break
        event = Event.FromString(content[start + 12 : end - 4])
        if event.step < step:
            kept.append(content[start:end])
            has_events = has_events or event.HasField("summary")
        start = end
    if not has_events:
        path.unlink()
    elif len(left := b"".join(kept)) < len(content):
        with atomic_write(path) as file:
            file.write(left)


def tensorboard_of(loggers: Iterable[object]) -> TensorBoard | None:
    """Return the TensorBoard logger among a trainer's loggers, if there is one."""
    return next((logger for logger in loggers if isinstance(logger, TensorBoard)), None)
