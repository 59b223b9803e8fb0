"""GPUs that jobs take turns at, shown with names of GPUs that nobody needs to have."""

import json
import multiprocessing
import os
import sys
from collections import defaultdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from convtrain.process.hardware import gpus_of
from convtrain.sweeps.jobs import take_gpu
from tests.sweeps.sweeping import Sweep


def test_gpus_are_those_that_are_named_or_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert gpus_of([3, "MIG-1"]) == ["3", "MIG-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-abc")
    assert gpus_of("auto") == ["4", "GPU-abc"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_of(None) == []

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n"
        "echo '  MIG 1g.10gb Device 0: (UUID: MIG-2)'\n"
        "echo 'GPU 1: NVIDIA H100 (UUID: GPU-3)'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus_of("auto") == ["0", "1"]
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus_of("auto") == []


def _worker(folder: Path, pipe: Connection) -> None:
    take_gpu(folder, ["7", "8"])
    pipe.send(os.environ["CUDA_VISIBLE_DEVICES"])
    pipe.recv()


@pytest.mark.slow
def test_a_third_process_waits_until_one_of_two_has_died(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = []
    for _ in range(3):
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(tmp_path, theirs), daemon=True)
        process.start()
        workers.append((process, ours))
    ready: list[Any] = multiprocessing.connection.wait([pipe for _, pipe in workers], timeout=60)
    while len(ready) < 2:
        ready = multiprocessing.connection.wait([pipe for _, pipe in workers], timeout=60)
    taken = {pipe: pipe.recv() for pipe in ready}
    assert sorted(taken.values()) == ["7", "8"]
    (waiting,) = (pipe for _, pipe in workers if pipe not in taken)
    assert not waiting.poll(0.5)
    victim = next(process for process, pipe in workers if taken.get(pipe) == "8")
    victim.kill()
    assert waiting.poll(30)
    assert waiting.recv() == "8"
    for process, _ in workers:
        process.kill()
        process.join()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("launcher", ["local_gpus", "submitit_local"])
def test_each_job_of_a_sweep_has_a_gpu_of_its_own(tmp_path: Path, launcher: str) -> None:
    sweep = Sweep(tmp_path)
    status, out, err = sweep.run(
        f"hydra/launcher={launcher}", "sweep.gpus=[7,8]", "seed=1,2,3,4", "trainer.max_epochs=1"
    )
    assert status == 0, err
    assert "4 of 4 jobs finished" in out
    gpus, processes = defaultdict(set), defaultdict(set)
    for step in sweep.steps():
        gpus[step["job"]].add(step["gpu"])
        processes[step["gpu"]].add((step["job"], step["pid"]))
    assert len(gpus) == 4
    assert all(len(names) == 1 for names in gpus.values())
    assert set(processes) == {"7", "8"}
    for job, names in gpus.items():
        written = json.loads((sweep.path / job / "provenance.json").read_text())
        assert {written["gpus"]} == names
        assert written["threads"] == max(len(os.sched_getaffinity(0)) // 2, 1)
    assert "hydra.launcher.n_jobs" not in (sweep.path / "sweep.json").read_text()
