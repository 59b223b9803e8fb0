"""A record over several lives of a run: each step once, and what a kill may cost."""

import csv
import errno
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convtrain import pipeline
from convtrain.errors import TrainingError
from convtrain.gradients import load
from convtrain.process.atomic import Writer
from convtrain.process.signals import Interrupted, Signals
from convtrain.training.task import Task
from tests.conftest import REPOSITORY, Train, compose
from tests.killing import nth_call

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
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


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
    plain = Writer.write

    def write(self: Writer, data: Any) -> int:
        if bytes(data[:4]) == b"PAR1":
            written.append(len(data))
            if len(written) > 2:
                self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, data)

    monkeypatch.setattr(Writer, "write", write)
    with pytest.raises(TrainingError) as stopped:
        train("logger=none", "recorder.flush_every_n_steps=2")
    message = str(stopped.value)
    assert "\n" not in message
    assert not [each for each in caplog.records if each.name.startswith("convtrain")], "told twice"
    assert "no space left on device" in message
    assert message.endswith("recorder=off trains without a record")
    assert [row["step"] for row in load(tmp_path / "run", "steps").to_pylist()] == [1, 2]


ACCUMULATED = (
    *SMALL, *DENSE, "trainer.accumulate_grad_batches=3", "trainer.max_epochs=2", "logger=csv",
    "trainer.val_check_interval=2", "recorder.tensors={every_n_steps: 1, first_n_steps: 0}",
    "trainer.log_every_n_steps=1", "data.limit=256",
)  # fmt: skip


@pytest.mark.parametrize("stops_at", [0, 1, 2])
def test_a_run_that_stops_between_accumulated_batches_has_the_rows_of_one_that_did_not(
    stops_at: int, train: Train, tmp_path: Path
) -> None:
    """A signal during one of the validations, which come after every second batch."""
    train(*ACCUMULATED, name="whole")
    signals = Signals()
    validated = nth_call(stops_at, partial(setattr, signals, "received", 15), Task.validation_step)
    config = compose("trainer=cpu", "callbacks.progress_bar=false", *ACCUMULATED)
    with patch.object(Task, "validation_step", validated), pytest.raises(Interrupted):
        pipeline.train(config, tmp_path / "run", signals=signals)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    cut = saved["position"]["batch"] % 3
    assert len(saved["callbacks"]["Recorder"]["micro_batches"].get("batch_idx", [])) == cut
    resume(tmp_path / "run", epochs=2)
    for table in TABLES:
        assert rows(tmp_path / "run", table) == rows(tmp_path / "whole", table), table
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    for path in (tmp_path / "whole" / "gradients" / "tensors").iterdir():
        mine = load_file(tmp_path / "run" / "gradients" / "tensors" / path.name)
        theirs = load_file(path)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs), path.name
