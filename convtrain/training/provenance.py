"""Where a run comes from: code, versions, machine."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from convtrain.process.hardware import VARIABLE

PACKAGES = ("torchvision", "pytorch-lightning", "hydra-core", "numpy")


def collect_provenance(*, seed: int, device: str) -> dict[str, Any]:
    """Return plain containers: git state, versions, device, threads, seed, command."""
    import convtrain

    return {
        "convtrain": convtrain.__version__,
        **_git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {"torch": torch.__version__, **{name: version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "gpus": os.environ.get(VARIABLE),  # that the process was shown
        "seed": seed,
        "command": sys.argv,
    }


def _git_state(folder: Path) -> dict[str, Any]:
    """Return commit and whether tracked files differ from it; None where git does not know."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "git_clean": None if changes is None else changes == ""}
