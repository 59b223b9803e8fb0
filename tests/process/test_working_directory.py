"""The working directory is importable in a command, behind everything that is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPT = """
import sys
from convtrain.process.startup import import_from_cwd
import_from_cwd()
import_from_cwd()
import random, datasets_of_mine
from hydra.core.plugins import Plugins
Plugins.instance()
assert sys.path.count({here!r}) == 1, sys.path
print(random.__file__)
print(datasets_of_mine.__file__)
"""


@pytest.mark.parametrize("front", [True, False], ids=["python -m", "a console script"])
def test_the_users_modules_are_found_and_replace_nothing(tmp_path: Path, front: bool) -> None:
    """``-m`` and ``-c`` put the working directory first, a console script does not."""
    for name in ("random", "hydra_plugins/evil", "hydra_plugins/hydra_joblib_launcher/__init__"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')")
    (tmp_path / "datasets_of_mine.py").write_text("")
    command = SCRIPT.format(here=str(tmp_path))
    if not front:
        command = f"import sys; del sys.path[0]{command}"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    standard, mine = done.stdout.splitlines()
    assert Path(standard).parent != tmp_path
    assert mine == str(tmp_path / "datasets_of_mine.py")
    assert not (tmp_path / "executed").exists()
