"""A record over several lives of a run: each step once, and what a kill may cost."""

import csv
import errno
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convtrain import pipeline
from convtrain.errors import TrainingError
from convtrain.files import Sink
from convtrain.gradients import load
from tests.conftest import REPOSITORY, Train, compose

TABLES = ("steps", "parameters", "layers", "histograms")
SMALL = (
    "data.limit=320", "data.batch_size=32", "recorder=debug", "recorder.tensors=null",
    "recorder.max_overhead=1",  # what is recorded shall not depend on the time that it takes
)  # fmt: skip
DENSE = ("recorder.distributions.every_n_steps=1",)


def rows(run: Path, table: str) -> str:
    found = load(run, table)
    return repr(found.select([n for n in found.column_names if n != "time"]).to_pylist())


def resume(run: Path, *, epochs: int) -> None:
    pipeline.train(compose(f"resume={run}", f"trainer.max_epochs={epochs}"), run)


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{**row, "images_per_second": ""} for row in csv.DictReader(file)]


def curves(run: Path) -> dict[str, list[int]]:
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [event.step for event in accumulator.Scalars(tag)] for tag in tags}


def test_a_resumed_record_is_that_of_a_run_never_interrupted(train: Train, tmp_path: Path) -> None:
    """The first life goes on for a while after its last checkpoint, as when it is killed."""
    common = (*SMALL, *DENSE, "scheduler=none", "trainer.log_every_n_steps=1")
    train(*common, "trainer.max_epochs=3", name="whole")
    train(*common, "trainer.max_epochs=1", name="run")
    kept = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    resume(tmp_path / "run", epochs=2)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(kept)
    resume(tmp_path / "run", epochs=3)
    steps = [row["step"] for row in load(tmp_path / "run", "steps").to_pylist()]
    assert steps == list(range(1, len(steps) + 1))
    for table in TABLES:
        assert rows(tmp_path / "run", table) == rows(tmp_path / "whole", table)
    mine, whole = curves(tmp_path / "run"), curves(tmp_path / "whole")
    assert {"grad_norm/conv2d_1.weight", "gradients/norm", "train/loss"} <= set(mine)
    for tag, points in whole.items():
        if not tag.startswith(("hp", "test/", "epoch")):  # the first life was tested too
            assert mine[tag] == points, tag
    mine, whole = (metrics(tmp_path / name) for name in ("run", "whole"))
    assert mine == whole


@pytest.mark.slow
def test_a_killed_run_loses_one_flush_at_most(python: str, tmp_path: Path) -> None:
    command = [
        python, "train.py", "trainer=cpu", "trainer.max_epochs=200", "data.batch_size=16",
        "recorder.flush_every_n_steps=20", "callbacks.progress_bar=false",
        "trainer.limit_val_batches=0", "trainer.log_every_n_steps=1",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (
        not metrics.exists() or len(metrics.read_text().splitlines()) < 150
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    seen = max(int(line.split(",")[0] or 0) for line in metrics.read_text().splitlines()[1:])
    steps = [row["step"] for row in load(tmp_path / "run", "steps").to_pylist()]
    assert seen > 100
    assert steps == list(range(1, len(steps) + 1))
    assert seen - len(steps) <= 2 * 20  # the rows in memory, and those being written
    train_again = [python, "train.py", f"resume={tmp_path / 'run'}", "trainer.max_steps=400"]
    if (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
        subprocess.run(train_again, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        steps = [row["step"] for row in load(tmp_path / "run", "steps").to_pylist()]
        assert steps == list(range(1, len(steps) + 1))


def test_an_exception_in_training_leaves_all_rows_but_none_twice(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convtrain.training.task import Task

    plain = Task.training_step

    def fails(self: Task, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == 7:
            raise RuntimeError("a worker died")
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(Task, "training_step", fails)
    with pytest.raises(TrainingError, match="step 7"):
        train("logger=none")
    assert [row["step"] for row in load(tmp_path / "run", "steps").to_pylist()] == [*range(1, 8)]


def test_a_full_disk_ends_the_run_in_one_line(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written: list[int] = []
    plain = Sink.write

    def write(self: Sink, data: Any) -> int:
        if bytes(data[:4]) == b"PAR1":
            written.append(len(data))
            if len(written) > 2:
                self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, data)

    monkeypatch.setattr(Sink, "write", write)
    with pytest.raises(TrainingError) as stopped:
        train("logger=none", "recorder.flush_every_n_steps=2")
    message = str(stopped.value)
    assert "\n" not in message
    assert not [each for each in caplog.records if each.name.startswith("convtrain")], "told twice"
    assert "no space left on device" in message
    assert message.endswith("recorder=off trains without a record")
    assert [row["step"] for row in load(tmp_path / "run", "steps").to_pylist()] == [1, 2]
