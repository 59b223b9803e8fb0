"""Jobs that fail, as the one who started the sweep sees them."""

import sys
from pathlib import Path

import pytest

from tests.sweeps.sweeping import Sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]
BROKEN = """
import os
import pytorch_lightning as pl
class Broken(pl.Callback):
    def __init__(self, seed):
        self.seed = seed
    def on_train_start(self, trainer, module):
        if self.seed == 2 and "HEALED" not in os.environ:
            raise RuntimeError("seed two is no good")
"""
JOBS = (
    "seed=1,2,3", "trainer.max_epochs=1", "trust=[witness,broken]",
    "callbacks.custom=[{_target_: witness.Witness},{_target_: broken.Broken,seed: ${seed}}]",
)  # fmt: skip


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_job_that_fails_is_told_left_alone_and_tried_again_when_asked(
    tmp_path: Path, launcher: str
) -> None:
    sweep = Sweep(tmp_path, custom=False)
    (tmp_path / "broken.py").write_text(BROKEN)
    arguments = (*JOBS, f"hydra/launcher={launcher}")
    status, out, err = sweep.run(*arguments)
    assert status == 1
    assert set(sweep.results()) == {"0", "2"}
    assert "2 of 3 jobs finished, 1 failed" in out
    assert "failed: job 1 (seed=2): " in out
    assert "RuntimeError: seed two is no good" in out
    assert (
        'raise RuntimeError("seed two is no good")' in (sweep.path / "1" / "train.log").read_text()
    )
    assert "seed two" not in (sweep.path / "2" / "train.log").read_text()

    steps = len(sweep.steps())
    status, out, err = sweep.run(*arguments, HEALED="1")
    assert status == 1
    assert "add sweep.retry_failed=true to try it again" in err
    assert len(sweep.steps()) == steps

    status, out, err = sweep.run(*arguments, "sweep.retry_failed=true", HEALED="1")
    assert status == 0, err
    assert "3 of 3 jobs finished" in out
    assert {step["job"] for step in sweep.steps()[steps:]} == {"1"}


def test_fail_fast_starts_no_other_job(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, custom=False)
    (tmp_path / "broken.py").write_text(BROKEN)
    status, out, err = sweep.run(*JOBS, "sweep.fail_fast=true")
    assert status == 1
    assert set(sweep.results()) == {"0"}
    assert "1 of 3 jobs finished, 1 failed, 1 not started" in out
    status, out, err = sweep.run(
        *JOBS, "sweep.fail_fast=true", "sweep.retry_failed=true", HEALED="1"
    )
    assert status == 0, err
    assert "3 of 3 jobs finished" in out


def test_a_search_whose_jobs_all_fail_ends_with_its_table(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    status, out, err = sweep.run(
        "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optimizer.lr=interval(0.01,0.1)",
        "network=vgg16_bn",
    )  # fmt: skip
    assert status == 1
    assert "0 of 2 jobs finished, 2 failed" in out
    assert "Output size is too small" in err
    assert "Traceback" not in err
