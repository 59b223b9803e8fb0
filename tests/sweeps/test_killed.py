"""A sweep that is killed by SIGKILL, at whatever moment, and started again by the same command."""

import random
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.sweeps.sweeping import Sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]

GRID = ("optimizer.lr=0.3,0.1,0.03", "model=functional,nn", "seed=1,2")
SEARCH = (
    "hydra/sweeper=optuna", "hydra.sweeper.n_trials=12", "model=functional,nn",
    "optimizer.lr=tag(log,interval(0.001,0.5))",
)  # fmt: skip
SWEEPS = {
    "grid": GRID,
    "joblib": (*GRID, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit": ("hydra/launcher=submitit_local", *GRID),
    "optuna": SEARCH,
    "optuna and joblib": (*SEARCH, "hydra/launcher=joblib", "hydra.sweeper.n_jobs=2"),
}
EPOCHS = ("trainer.max_epochs=6", "trainer.threads=1")
SAME = ("val/acc", "val/loss", "test/acc", "test/loss", "steps", "epochs")


@pytest.mark.parametrize("arguments", SWEEPS.values(), ids=SWEEPS)
def test_twelve_jobs_killed_again_and_again_are_trained_once(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    sweep, moments = Sweep(tmp_path), random.Random(str(arguments))
    kills, finished = 0, {}
    while kills < 4:
        process = sweep.start(*arguments, *EPOCHS)
        before = sweep.seen.stat().st_size if sweep.seen.exists() else 0
        while process.poll() is None and _size(sweep.seen) == before:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 1.5))
        if process.poll() is not None:
            break
        sweep.kill(only_the_command=moments.random() < 0.3)
        kills += 1
        for name in finished:
            assert finished[name] == _trace(sweep, name), f"job {name} was trained twice"
        finished = {name: _trace(sweep, name) for name in sweep.results()}
    assert kills > 2
    status, out, err = sweep.run(*arguments, *EPOCHS)
    assert status == 0, err
    assert "12 of 12 jobs finished" in out
    assert len(sweep.results()) == 12
    for name in finished:
        assert finished[name] == _trace(sweep, name), f"job {name} was trained twice"
    whole = Sweep(tmp_path / "whole")
    assert whole.run(*arguments, *EPOCHS)[0] == 0
    for name, result in whole.results().items():
        assert {k: result[k] for k in SAME} == {k: sweep.results()[name][k] for k in SAME}

    again = len(sweep.steps())
    assert sweep.run(*arguments, *EPOCHS)[0] == 0
    assert len(sweep.steps()) == again


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _trace(sweep: Sweep, name: str) -> tuple[int, int]:
    """Return what tells that a finished job was not touched: its file, and its steps."""
    steps = defaultdict(int)
    for step in sweep.steps():
        steps[step["job"]] += 1
    return (sweep.path / name / "result.json").stat().st_ino, steps[name]
