"""Two processes over gloo: one record, equal to that of one process with the joined batch."""

import os
import subprocess
from pathlib import Path

import pytest

from convtrain.gradients import load
from tests.conftest import REPOSITORY

COMMON = (
    "trainer=ddp_cpu", "trainer.max_epochs=1", "data.limit=200", "data.batch_size=32",
    "recorder=stats", "recorder.statistics.every_n_steps=1", "recorder.flush_every_n_steps=3",
    "callbacks.progress_bar=false", "network=lstm", "trainer.gradient_clip_val=0.05",
    "logger=none",
)  # fmt: skip
NUMBERS = {
    "steps": ("norm", "clipped_norm", "clip_coefficient", "loss", "micro_batches", "nonfinite"),
    "parameters": ("norm", "mean", "std", "minimum", "maximum", "zero_fraction", "update_ratio"),
}


UNFREEZES = ("trainer.max_epochs=2", "model.freeze=[backbone]", "model.unfreeze_at_epoch=1")


@pytest.mark.slow
@pytest.mark.parametrize("style", ["nn", "functional"])
@pytest.mark.parametrize("more", [(), UNFREEZES], ids=["trained", "unfrozen later"])
def test_two_processes_leave_one_record(
    more: tuple[str, ...], style: str, python: str, tmp_path: Path
) -> None:
    """No layer of these networks looks at several images at once, as batch norm does."""
    for devices in (1, 2):
        command = [
            python, "train.py", *COMMON, *more, f"model={style}", f"trainer.devices={devices}",
            f"hydra.run.dir={tmp_path / str(devices)}",
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=REPOSITORY, check=True, timeout=300, env=environment)
    for table, columns in NUMBERS.items():
        one, two = (load(tmp_path / devices, table).to_pylist() for devices in ("1", "2"))
        assert len(one) == len(two) > 0
        for mine, theirs in zip(two, one, strict=True):
            assert mine["step"] == theirs["step"]
            assert mine.get("parameter") == theirs.get("parameter")
            for column in columns:
                expected = pytest.approx(theirs[column], rel=2e-4, abs=1e-7)
                assert mine[column] == expected, (mine["step"], column)
    steps = [row["step"] for row in load(tmp_path / "2", "steps").to_pylist()]
    assert steps == list(range(1, len(steps) + 1))
