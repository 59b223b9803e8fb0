"""Sweeps whose jobs train on one device or several: each rank has the values of its job."""

import json
import sys
from pathlib import Path

import pytest

from tests.command.typed import check
from tests.sweeps.sweeping import Sweep

SHORT = ("trainer.max_epochs=1", "callbacks.checkpoint.save_top_k=0")
several = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]


def values_by_job(sweep: Sweep) -> dict[str, dict[int, set[float]]]:
    """Return the learning rates that each rank of each job has trained with."""
    seen: dict[str, dict[int, set[float]]] = {}
    for step in sweep.steps():
        seen.setdefault(step["job"], {}).setdefault(step["rank"], set()).add(step["lr"])
    return seen


class TestMixed:
    """One device, then two, then one again, in one sweep."""

    pytestmark = several

    def test_each_job_has_its_own_values_on_every_rank(self, tmp_path: Path) -> None:
        sweep = Sweep(tmp_path)
        status, out, err = sweep.run(
            "trainer=ddp_cpu", "optimizer.lr=0.1,0.01", "trainer.devices=2,1", *SHORT
        )
        assert status == 0, err
        assert values_by_job(sweep) == {
            "0": {0: {0.1}, 1: {0.1}}, "1": {0: {0.1}}, "2": {0: {0.01}, 1: {0.01}},
            "3": {0: {0.01}},
        }  # fmt: skip
        assert {s["job"]: s["devices"] for s in sweep.steps()} == {"0": 2, "1": 1, "2": 2, "3": 1}
        assert "4 of 4 jobs finished" in out
        assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) in (
            ["sweep"], ["__pycache__", "sweep"],
        )  # fmt: skip
        assert (sweep.path / "2" / "train.rank1.log").is_file()
        assert not (sweep.path / "3" / "train.rank1.log").exists()

    def test_the_trainer_itself_may_be_swept(self, tmp_path: Path) -> None:
        sweep = Sweep(tmp_path)
        status, _, err = sweep.run("trainer=ddp_cpu,cpu", "seed=1,2", *SHORT)
        assert status == 0, err
        assert [s["devices"] for s in sweep.steps() if s["rank"] == 0][::2] == [2, 2, 1, 1]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_search_gives_both_ranks_of_a_job_the_same_values(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    status, _, err = sweep.run(
        "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "trainer=ddp_cpu",
        "optimizer.lr=tag(log,interval(0.001,0.5))", *SHORT,
    )  # fmt: skip
    assert status == 0, err
    seen = values_by_job(sweep)
    assert list(seen) == ["0", "1", "2"]
    for ranks in seen.values():
        assert ranks[0] == ranks[1]
        assert len(ranks[0]) == 1
    assert len({rate for ranks in seen.values() for rate in ranks[0]}) == 3
    for name, ranks in seen.items():
        config = (sweep.path / name / "config.yaml").read_text()
        assert f"lr: {next(iter(ranks[0]))!r}" in config


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_jobs_at_the_same_time_divide_the_cores_and_write_it_down(tmp_path: Path) -> None:
    import os

    sweep = Sweep(tmp_path)
    status, _, err = sweep.run(
        "hydra/launcher=submitit_local", "seed=1,2", "trainer=ddp_cpu", *SHORT
    )
    assert status == 0, err
    each = max(len(os.sched_getaffinity(0)) // 4, 1)  # two jobs of two processes
    for name in ("0", "1"):
        written = json.loads((sweep.path / name / "provenance.json").read_text())
        assert written["threads"] == each


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["hydra/launcher=joblib", "trainer.devices=1,2", "trainer=ddp_cpu"],
            "trainer.devices=2: hydra/launcher=joblib gives each job one device; leave it out, or "
            "type hydra/launcher=submitit_local",
        ),
        (
            ["hydra/launcher=local_gpus", "sweep.gpus=[0]", "trainer=ddp_cpu"],
            "trainer.devices=2: hydra/launcher=local_gpus gives each job one device; leave it out, "
            "or type hydra/launcher=submitit_local",
        ),
        (
            ["hydra/launcher=submitit_local", "sweep.gpus=[0]", "trainer=ddp_cpu"],
            "trainer.devices=2: sweep.gpus gives each job one GPU; leave one of the two out",
        ),
        (
            ["hydra/launcher=local_gpus"],
            "sweep.gpus=auto: no GPU is found here by nvidia-smi; list them: sweep.gpus=[0,1], or "
            "type hydra/launcher=joblib",
        ),
        (
            ["hydra/launcher=submitit_slurm", "hydra.launcher.nodes=2"],
            "hydra.launcher.nodes=2: a job of a sweep has one machine and one task, which starts "
            "its own processes; set trainer.devices, or leave -m out, with srun",
        ),
        (
            ["trainer.num_nodes=2", "trainer=ddp"],
            "trainer.num_nodes=2: a job of a sweep has one machine; leave it out",
        ),
        (
            ["optimizer.lr=interval(0.01,0.1)"],
            "optimizer.lr=interval(0.01,0.1): hydra/sweeper=basic tries listed values only; list "
            "them, or type hydra/sweeper=optuna",
        ),
        (
            ["hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=null"],
            "hydra.sweeper.sampler.seed=null: a search without a seed cannot be resumed; give one",
        ),
        (
            ["hydra/sweeper=optuna", "hydra.sweeper.storage=sqlite:///study.db"],
            "hydra.sweeper.storage: a stored study knows nothing of the runs; leave it null, the "
            "same command resumes the search from the runs themselves",
        ),
        (
            ["hydra/sweeper=optuna", "data.folds=2", "data.fold=0,1"],
            "data.fold=0,1: a search would choose the easiest fold; type one value, or leave "
            "hydra/sweeper out to train every fold",
        ),
    ],
    ids=[
        "joblib",
        "local_gpus",
        "queue",
        "no GPU",
        "nodes",
        "num_nodes",
        "interval",
        "no seed",
        "storage",
        "folds",
    ],
)
def test_what_cannot_be_started_is_refused_in_one_line(
    arguments: list[str], says: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit) as raised:
        check(["-m", "seed=1,2", *arguments, f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    assert raised.value.code == 2
    assert capsys.readouterr().err == f"{says}\n"
