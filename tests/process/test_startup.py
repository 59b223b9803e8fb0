"""A command that ends without a last collection has done all that it was asked to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPT = """
import atexit, gc, weakref
atexit.register(print, "registered before")
from convtrain.process.startup import running_as_command
class Object: pass
ends_with_process = weakref.finalize(Object(), print, "finalized")
kept = Object()
also = weakref.finalize(kept, print, "finalized at exit")
with running_as_command():
    atexit.register(print, "registered within")
    {body}
"""
ENDS = {
    "the end": ("pass", 0),
    "an exit": ("raise SystemExit(3)", 3),
    "a message": ("raise SystemExit('no')", 1),
    "an error": ("1 / 0", 1),
    "Ctrl-C": ("raise KeyboardInterrupt", 130),
}


@pytest.mark.parametrize("end", ENDS)
def test_all_exit_handlers_run_and_the_status_is_kept(end: str) -> None:
    body, status = ENDS[end]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == status
    assert done.stdout.splitlines() == [
        "finalized", "registered within", "finalized at exit", "registered before",
    ]  # fmt: skip
    assert (done.stderr == "stopped by SIGINT\n") == (end == "Ctrl-C")


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu", "ddp_cpu"])
def test_coverage_keeps_what_it_saw_of_a_training(tmp_path: Path, trainer: str) -> None:
    settings = tmp_path / "coveragerc"
    settings.write_text(
        f"[run]\ndata_file={tmp_path}/data\nsource=convtrain\nparallel=true\n"
        "concurrency=multiprocessing,thread\n"
    )
    tiny = ("data.limit=64", "trainer.max_epochs=1", "logger=csv", "recorder=off")
    subprocess.run(
        [
            sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "train.py", *tiny,
            f"trainer={trainer}", f"hydra.run.dir={tmp_path / 'run'}",
        ],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    for command in ("combine", "report"):
        done = subprocess.run(
            [sys.executable, "-m", "coverage", command, f"--rcfile={settings}"],
            cwd=REPOSITORY, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    covered = {
        line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if "%" in line
    }
    assert int(covered["convtrain/training/task.py"].rstrip("%")) > 40
