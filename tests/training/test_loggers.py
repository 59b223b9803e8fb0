"""The files that a run's curves are written to."""

import io
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import record_writer
from tensorboard.summary.writer.record_writer import RecordWriter

from convtrain.training.loggers.metrics_csv import MetricsCsv
from convtrain.training.loggers.tensorboard import TensorBoard, record
from tests.conftest import Train


@pytest.mark.parametrize("size", [0, 1, 9, 1000])
def test_a_record_is_the_bytes_that_tensorboard_s_own_writer_writes(size: int) -> None:
    content, file = bytes(index * 37 % 256 for index in range(size)), io.BytesIO()
    RecordWriter(file).write(content)
    assert record(content) == file.getvalue()


def test_our_writer_computes_checksums_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = TensorBoard(tmp_path)
    assert logger.experiment  # has written the file's first record
    monkeypatch.setattr(record_writer, "masked_crc32c", lambda content: 0)
    logger.log_metrics({"loss": 0.5}, 1)
    logger.finalize("done")
    (event,) = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert event.value == 0.5


def test_the_numbers_of_a_step_can_be_read_back(tmp_path: Path) -> None:
    logger = TensorBoard(tmp_path)
    for step in (1, 2):
        logger.log_metrics({"loss": 0.5 / step, "lr": 1}, step)
    logger.finalize("success")
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [(e.step, e.value) for e in read.Scalars("lr")] == [(1, 1.0), (2, 1.0)]


def test_a_run_writes_one_file_of_events(train: Train, tmp_path: Path) -> None:
    # Of files opened within a second TensorBoard may read the tenth before the ninth.
    train()
    (path,) = (tmp_path / "run").glob("events.out.tfevents.*")
    read = EventAccumulator(str(path)).Reload()
    assert {"train/loss", "val/loss", "test/loss"} <= set(read.Tags()["scalars"])


def test_a_row_of_metrics_is_in_the_file_at_once_and_after_closing_comes_the_next(
    tmp_path: Path,
) -> None:
    logger = MetricsCsv(tmp_path)
    for step in (1, 2, 3):
        logger.log_metrics({"train/loss": 0.5, "unknown": 1.0}, step)
        assert len(logger.path.read_text().splitlines()) == 1 + step
        if step == 2:
            logger.finalize("success")
    logger.forget_after(2)
    logger.log_metrics({"train/acc": 0.25}, 3)
    rows = [line.split(",")[:4] for line in logger.path.read_text().splitlines()[1:]]
    assert rows == [["1", "", "0.5", ""], ["2", "", "0.5", ""], ["3", "", "", "0.25"]]
