"""A run that is killed before and after any of its writes, and resumed, leaves nothing behind."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from convtrain import pipeline
from convtrain.run.result import Result
from tests.conftest import compose
from tests.killing import calling_at_writes, killed_at_write
from tests.training.test_resume import record, rows

TINY = (
    "trainer=cpu", "callbacks.progress_bar=false", "data=synthetic", "data.shape=[3,8,8]",
    "data.train_size=20", "data.test_size=4", "data.batch_size=4", "data.eval_batch_size=4",
    "network.layers=[{Conv2d: {out_channels: 2, kernel_size: 3}}, Flatten, "
    "{Linear: {out_features: 10}}]", "trainer.max_epochs=2", "trainer.log_every_n_steps=2",
    "callbacks.checkpoint.every_n_steps=3", "callbacks.checkpoint.keep_last=2", "logger=csv",
    "recorder=debug", "recorder.flush_every_n_steps=3", "recorder.max_overhead=1",
)  # fmt: skip


PAGE = ("report.html", "evaluations/test-mistakes.npz")
"""Written after the run is finished; the command ``report`` makes the page again."""


def train(run: Path) -> Result:
    saved = (run / "checkpoints" / "last.ckpt").is_file()
    return pipeline.train(compose(f"resume={run}") if saved else compose(*TINY), run)


def files(run: Path) -> list[str]:
    """Return all that is in a run's directory; parts of a record are cut elsewhere by a resume."""
    found = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.suffix != ".parquet")


def writes(tmp_path: Path) -> int:
    numbers: list[int] = []
    with calling_at_writes(numbers.append):
        train(tmp_path / "whole")
    return len(numbers)


def check(tmp_path: Path, number: int) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    if not killed_at_write(lambda: train(run), number):
        return  # the record is written in a thread, and its writes are not always as many
    if not (run / "result.json").is_file():
        train(run)
        missing = []
    else:  # while the verdict is added to the result of a run that is finished, or its page written
        for stray in run.rglob(".*.tmp"):
            stray.unlink()
        missing = [name for name in PAGE if not (run / name).is_file()]
    assert sorted([*files(run), *missing]) == files(whole), number
    assert record(run) == record(whole), number
    assert rows(run) == rows(whole), number
    predicted = [pq.read_table(each / "evaluations" / "test.parquet") for each in (run, whole)]
    assert predicted[0].equals(predicted[1]), number
    steps = [json.loads((each / "result.json").read_text())["steps"] for each in (run, whole)]
    assert steps[0] == steps[1], number


def test_what_a_kill_leaves_half_written_is_swept(tmp_path: Path) -> None:
    """Two of the places of the test below: in the midst, and before result.json is renamed."""
    count = writes(tmp_path)
    for number in (count // 2, count - 26):
        check(tmp_path, number)


@pytest.mark.slow
def test_no_write_is_one_at_which_a_kill_leaves_anything(tmp_path: Path) -> None:
    for number in range(writes(tmp_path)):
        check(tmp_path, number)
