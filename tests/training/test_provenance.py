"""What provenance.json records, and how runs of before, which record less, are compared."""

import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from convtrain.run.directory import Run
from convtrain.training.provenance import collect_provenance, installed_packages
from convtrain.use.compare import provenance_rows
from tests.conftest import REPOSITORY


def git(folder: Path, *arguments: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder))
    done = subprocess.run(["git", *own, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_every_installed_package_is_recorded_under_the_name_that_pip_uses() -> None:
    found = installed_packages()
    assert list(found) == sorted(found)
    for package in ("torch", "pytorch-lightning", "hydra-core", "PyYAML", "typing_extensions"):
        assert found[package.lower().replace("_", "-")] == metadata.version(package)
    assert len(found) == len({d.metadata["Name"].lower() for d in metadata.distributions()})


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_users_repository_is_recorded_beside_convtrains_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    nothing = {"folder": str(tmp_path), "git_commit": None, "git_clean": None}
    assert collect_provenance(seed=1, device="cpu")["project"] == nothing
    git(tmp_path, "init")
    (tmp_path / "mine.py").touch()
    git(tmp_path, "add", "mine.py")
    git(tmp_path, "commit", "-m", "one")
    found = collect_provenance(seed=1, device="cpu")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert found["project"] == {"folder": str(tmp_path), "git_commit": head, "git_clean": True}
    ours = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    assert found["git_commit"] == (ours.stdout.strip() or None)
    (tmp_path / "mine.py").write_text("changed = True\n")
    project = collect_provenance(seed=1, device="cpu")["project"]
    assert project == {"folder": str(tmp_path), "git_commit": head, "git_clean": False}


def test_what_an_older_run_does_not_record_is_no_difference(tmp_path: Path) -> None:
    new = collect_provenance(seed=1, device="cpu")
    old = {key: value for key, value in new.items() if key != "project"}
    old["packages"] = {"torch": "1.0", "numpy": new["packages"]["numpy"]}  # type: ignore[index]
    other = {**new, "packages": {**new["packages"], "mine": "1"}}  # type: ignore[dict-item]
    runs = {}
    for name, recorded in (("new", new), ("old", old), ("other", other)):
        runs[name] = Run(tmp_path / name)
        runs[name].path.mkdir()
        runs[name].provenance.write_text(json.dumps(recorded))

    def differing(first: str, second: str) -> set[str]:
        rows = provenance_rows(runs[first], runs[second])
        return {row.key for row in rows if not row.is_equal}

    assert differing("old", "new") == differing("new", "old") == {"packages.torch"}
    assert differing("new", "other") == {"packages.mine"}
