"""The provenance of a run: code, versions, machine."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

import convtrain
from convtrain.process.hardware import VARIABLE
from convtrain.program import HOME, TRAIN, typed_in


def collect_provenance(*, seed: int, device: str) -> dict[str, object]:
    """Return the states of git, all versions, device, threads, seed and command, as plain values.

    ``git_commit`` and ``git_clean`` are those of convtrain's clone, and those below ``project`` of
    the folder in which the command was typed; each is None without a repository.
    """
    project, ours = typed_in(), _git(HOME) if TRAIN.is_file() else _NO_REPOSITORY
    return {
        "convtrain": convtrain.__version__,
        **ours,
        "project": {"folder": str(project), **(ours if project == HOME else _git(project))},
        "python": platform.python_version(),
        "packages": {**installed_packages(), "torch": torch.__version__},
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "gpus": os.environ.get(VARIABLE),
        "seed": seed,
        "command": sys.argv,
    }


def installed_packages() -> dict[str, str]:
    """Return the version of each package that this process can import, by its normalized name."""
    found: dict[str, str] = {}
    for package in metadata.distributions():
        text = package.read_text("METADATA") or package.read_text("PKG-INFO") or ""
        head = text.partition("\n\n")[0]  # metadata's own parser takes ten times as long
        name, version = (re.search(rf"^{k}:\s*(\S+)", head, re.M) for k in ("Name", "Version"))
        if name and version:  # the first on sys.path is the one that is imported
            found.setdefault(re.sub(r"[-_.]+", "-", name[1]).lower(), version[1])
    return dict(sorted(found.items()))


_NO_REPOSITORY: dict[str, object] = {"git_commit": None, "git_clean": None}


def _git(folder: Path) -> dict[str, object]:
    # a repository's fsmonitor is a program that git would start
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), "status"]
    try:
        done = subprocess.run(
            [*command, "--porcelain=v2", "--branch", "--untracked-files=no"],
            capture_output=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return _NO_REPOSITORY
    lines = done.stdout.decode(errors="replace").splitlines()
    heads = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    return {
        "git_commit": next((commit for commit in heads if commit != "(initial)"), None),
        "git_clean": all(line.startswith("#") for line in lines),
    }
